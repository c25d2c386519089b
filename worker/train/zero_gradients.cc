#include "worker/train/zero_gradients.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "collectives/tree_shape.h"
#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;
using collectives::ReduceOp;

// One stripe travels while the next one is computed.
constexpr size_t kMostInFlight = 1;

}  // namespace

ZeroGradients::ZeroGradients(nn::TrainingProgram& program, int shards, int pieces, bool visits)
    : program_(program),
      shards_(shards),
      pieces_(pieces),
      visits_(visits),
      trained_(TrainedElements(program.parameters())),
      layout_(trained_, 1) {
  program_.WatchGradients([this](size_t parameter) { OnReady(parameter); });
}

ZeroGradients::~ZeroGradients() {
  Abandon();
  program_.WatchGradients(nullptr);
}

std::vector<MicroBatch> ZeroGradients::MicroBatchesOf(int rank, int ranks, int shards, int pieces) {
  std::vector<MicroBatch> mine;
  if (rank >= ranks) return mine;
  for (int number = rank; number < shards * pieces; number += ranks) {
    mine.push_back({number / pieces, number % pieces});
  }
  return mine;
}

int64_t ZeroGradients::PartSize(int stripe) const {
  int64_t most = 0;
  for (int rank = 0; rank < layout_.ranks(); ++rank) {
    most = std::max(most, layout_.part(rank, stripe).size());
  }
  return most;
}

void ZeroGradients::Begin(Communicator& gang, const ZeroLayout& layout, int workers) {
  Abandon();
  if (layout.ranks() != layout_.ranks() || layout.stripes() != layout_.stripes() ||
      gang.rank() != rank_) {
    spare_.clear();
    stripes_.clear();
  }
  gang_ = &gang;
  rank_ = gang.rank();
  workers_ = workers;
  layout_ = layout;
  stripes_.resize(static_cast<size_t>(layout.stripes()));
  const int ranks = gang.size();
  const bool subtrees = ranks == shards_ || std::has_single_bit(static_cast<unsigned>(ranks));
  sums_in_rounds_ =
      pieces_ == 1 && workers == ranks && subtrees &&
      collectives::TreeSplits(ranks, shards_) == collectives::TreeSplits(ranks, ranks);
  for (Stripe& stripe : stripes_) stripe.Recycle();
  rest_.clear();
  round_ = 0;
  BeginRound();
}

// A round's shards are a subtree of all where they are all, or begin at a multiple of their number,
// which is a power of two.
bool ZeroGradients::Summed(int64_t round) const {
  const int ranks = gang_->size();
  return sums_in_rounds_ && (round + 1) * ranks <= shards_;
}

void ZeroGradients::BeginRound() {
  for (int i = 0; i < layout_.stripes(); ++i) {
    stripes_[static_cast<size_t>(i)].missing = layout_.stripe(i).size();
  }
  next_ = layout_.stripes();
}

ZeroGradients::Staging ZeroGradients::MakeStaging(int stripe, int parts) {
  return TakeFrom(spare_, PartSize(stripe) * parts);
}

void ZeroGradients::OnReady(size_t parameter) {
  if (gang_ == nullptr) return;
  const nn::ParameterView& view = program_.parameters()[parameter];
  if (blank_) zeros_.assign(static_cast<size_t>(view.size), 0.0f);
  Pack(view.offset, blank_ ? zeros_ : program_.gradient(parameter));
}

void ZeroGradients::Pack(int64_t begin, std::span<const float> values) {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  for (int i = 0; i < layout_.stripes(); ++i) {
    const Elements at = layout_.stripe(i);
    if (end <= at.begin || at.end <= begin) continue;
    Stripe& stripe = stripes_[static_cast<size_t>(i)];
    if (stripe.filling.empty()) stripe.filling = MakeStaging(i, layout_.ranks());
    const int64_t each = PartSize(i);
    for (int rank = 0; rank < layout_.ranks(); ++rank) {
      const Elements part = layout_.part(rank, i);
      const int64_t from = std::max(begin, part.begin), to = std::min(end, part.end);
      if (from >= to) continue;
      std::copy(values.begin() + (from - begin), values.begin() + (to - begin),
                stripe.filling.begin() + rank * each + (from - part.begin));
      stripe.missing -= to - from;
    }
  }
  SendReady();
}

// In the same order on all ranks.
void ZeroGradients::SendReady() {
  while (failed_.ok() && next_ > 0 && stripes_[static_cast<size_t>(next_ - 1)].missing == 0) {
    while (failed_.ok() && in_flight_.size() >= kMostInFlight) failed_ = WaitForOldest();
    if (!failed_.ok()) return;
    --next_;
    Stripe& stripe = stripes_[static_cast<size_t>(next_)];
    if (stripe.filling.empty()) continue;  // without an element
    const bool summed = Summed(round_);
    InFlight sent{next_, round_, std::exchange(stripe.filling, {}),
                  MakeStaging(next_, summed ? 1 : gang_->size()), nullptr};
    const auto count = static_cast<size_t>(PartSize(next_));
    sent.handle = summed ? gang_->ReduceScatterAsync(sent.sent.data(), sent.received.data(), count,
                                                     DataType::kFloat32, ReduceOp::kSum)
                         : gang_->AllToAllAsync(sent.sent.data(), sent.received.data(), count,
                                                DataType::kFloat32);
    in_flight_.push_back(std::move(sent));
  }
}

Status ZeroGradients::WaitForOldest() {
  InFlight oldest = std::move(in_flight_.front());
  in_flight_.erase(in_flight_.begin());
  {
    // In the middle of the backward pass, but for peers: no standing still of this rank's, and no
    // work either, since then a group in which all wait for one that hangs would never end.
    const progress::Waiting waiting;
    LEPTON_RETURN_IF_ERROR(oldest.handle->Wait(Deadline::Never()).WithContext("gradients"));
  }
  Fold(oldest);
  spare_.push_back(std::move(oldest.sent));
  spare_.push_back(std::move(oldest.received));
  return Status::Ok();
}

void ZeroGradients::After(const nn::LossSum& loss, bool computed) {
  if (!computed) PassWithoutRows();
  const std::span<const float> measured = program_.gradients();
  rest_.insert(rest_.end(), measured.begin(), measured.end());
  if (!computed)
    std::fill(rest_.end() - static_cast<ptrdiff_t>(measured.size()), rest_.end(), 0.0f);
  const auto bits = std::bit_cast<LossBits>(std::array{loss.sum, loss.count});
  rest_.insert(rest_.end(), bits.begin(), bits.end());
  ++round_;
  BeginRound();
}

void ZeroGradients::PassWithoutRows() {
  blank_ = true;
  if (!visits_) {
    for (size_t i = 0; i < program_.parameters().size(); ++i) {
      if (!program_.parameters()[i].statistic) OnReady(i);
    }
  } else if (failed_.ok()) {
    const Status passed = program_.PassThrough();
    if (failed_.ok()) failed_ = passed;
  }
  blank_ = false;
  zeros_ = {};
}

Result<StepSums> ZeroGradients::Reduce(const RankWord& word) {
  // A round in which this rank has nothing: others have, and nobody looks at what it sends.
  for (; failed_.ok() && round_ < rounds(); ++round_) {
    BeginRound();
    if (visits_) {
      PassWithoutRows();
      continue;
    }
    for (int i = layout_.stripes(); i-- > 0;) {
      Stripe& stripe = stripes_[static_cast<size_t>(i)];
      stripe.missing = 0;
      if (!layout_.stripe(i).empty()) stripe.filling = MakeStaging(i, gang_->size());
      SendReady();
    }
  }
  while (failed_.ok() && !in_flight_.empty()) failed_ = WaitForOldest();
  LEPTON_RETURN_IF_ERROR(failed_);
  LEPTON_RETURN_IF_ERROR(WaitForMirrors());
  return ShareRest(word);
}

void ZeroGradients::Abandon() {
  for (InFlight& one : in_flight_) (void)one.handle->Wait(Deadline::Never());
  in_flight_.clear();
  mirrors_.clear();  // which waits for them
  for (Stripe& stripe : stripes_) stripe.filling.clear();
  failed_ = Status::Ok();
}

uint64_t ZeroGradients::bytes() const {
  uint64_t floats = rest_.size();
  for (const Stripe& stripe : stripes_) {
    floats += stripe.own.capacity() + stripe.mirrored.capacity();
    for (const Partial& partial : stripe.partials) floats += partial.sum.capacity();
    for (const std::vector<float>& spare : stripe.spare) floats += spare.capacity();
    floats += stripe.filling.capacity();
  }
  for (const InFlight& one : in_flight_) floats += one.sent.capacity() + one.received.capacity();
  for (const Staging& staging : spare_) floats += staging.capacity();
  return floats * sizeof(float);
}

}  // namespace lepton::worker
