#include "worker/train/zero_gradients.h"

#include <algorithm>
#include <utility>

#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

// One stripe travels while the next one is computed.
constexpr size_t kMostInFlight = 1;

void AddInto(float* left, const float* right, int64_t count) {
  for (int64_t i = 0; i < count; ++i) left[i] += right[i];
}

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

std::vector<int> ZeroGradients::ShardsOf(int rank, int ranks, int shards) {
  std::vector<int> mine;
  for (int shard = rank; shard < shards; shard += ranks) mine.push_back(shard);
  return mine;
}

int64_t ZeroGradients::PartSize(int stripe) const {
  int64_t most = 0;
  for (int rank = 0; rank < layout_.ranks(); ++rank) {
    most = std::max(most, layout_.part(rank, stripe).size());
  }
  return most;
}

void ZeroGradients::Begin(Communicator& gang, const ZeroLayout& layout) {
  Abandon();
  if (layout.ranks() != layout_.ranks() || layout.stripes() != layout_.stripes()) spare_.clear();
  gang_ = &gang;
  rank_ = gang.rank();
  layout_ = layout;
  stripes_.resize(static_cast<size_t>(layout.stripes()));
  for (Stripe& stripe : stripes_) stripe.partials.clear();
  rest_.clear();
  piece_ = 0;
  round_ = 0;
  BeginRound();
}

void ZeroGradients::BeginRound() {
  for (int i = 0; i < layout_.stripes(); ++i) {
    stripes_[static_cast<size_t>(i)].missing = layout_.stripe(i).size();
  }
  next_ = layout_.stripes();
}

ZeroGradients::Staging ZeroGradients::MakeStaging(int stripe) {
  Staging staging;
  if (!spare_.empty()) {
    staging = std::move(spare_.back());
    spare_.pop_back();
  }
  staging.resize(static_cast<size_t>(PartSize(stripe) * layout_.ranks()));
  return staging;
}

void ZeroGradients::OnReady(size_t parameter) {
  if (gang_ == nullptr) return;
  const nn::ParameterView& view = program_.parameters()[parameter];
  if (blank_) zeros_.assign(static_cast<size_t>(view.size), 0.0f);
  const std::span<const float> gradient = blank_ ? zeros_ : program_.gradient(parameter);
  if (pieces_ == 1) return Pack(view.offset, gradient);
  if (pieces_sum_.empty()) pieces_sum_.resize(static_cast<size_t>(trained_));
  float* const sum = pieces_sum_.data() + view.offset;
  if (piece_ == 0) {
    std::copy(gradient.begin(), gradient.end(), sum);
  } else {
    AddInto(sum, gradient.data(), view.size);
  }
  if (piece_ + 1 == pieces_) Pack(view.offset, {sum, gradient.size()});
}

void ZeroGradients::Pack(int64_t begin, std::span<const float> values) {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  for (int i = 0; i < layout_.stripes(); ++i) {
    const Elements at = layout_.stripe(i);
    if (end <= at.begin || at.end <= begin) continue;
    Stripe& stripe = stripes_[static_cast<size_t>(i)];
    if (stripe.filling.empty()) stripe.filling = MakeStaging(i);
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
    InFlight sent{next_, round_, std::exchange(stripe.filling, {}), MakeStaging(next_), nullptr};
    sent.handle = gang_->AllToAllAsync(sent.sent.data(), sent.received.data(),
                                       static_cast<size_t>(PartSize(next_)), DataType::kFloat32);
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

// Like a binary counter: two complete subtrees of a size become one. What is left at the end is
// added from the right: an incomplete subtree to the complete one on its left.
void ZeroGradients::Fold(InFlight& done) {
  Stripe& stripe = stripes_[static_cast<size_t>(done.stripe)];
  const int64_t size = layout_.part(gang_->rank(), done.stripe).size();
  const int64_t each = PartSize(done.stripe);
  struct Open {
    int64_t leaves;
    float* sum;
    Partial* kept;
  };
  std::vector<Open> open;
  for (Partial& partial : stripe.partials) {
    open.push_back({partial.leaves, partial.sum.data(), &partial});
  }
  const int64_t first = done.round * gang_->size();
  for (int64_t leaf = first; leaf < std::min<int64_t>(first + gang_->size(), shards_); ++leaf) {
    open.push_back({1, done.received.data() + (leaf - first) * each, nullptr});
    while (open.size() > 1 && open[open.size() - 2].leaves == open.back().leaves) {
      AddInto(open[open.size() - 2].sum, open.back().sum, size);
      open[open.size() - 2].leaves *= 2;
      open.pop_back();
    }
  }
  if (first + gang_->size() >= shards_) {
    for (; open.size() > 1; open.pop_back()) {
      AddInto(open[open.size() - 2].sum, open.back().sum, size);
    }
    stripe.own.assign(open[0].sum, open[0].sum + size);
    stripe.partials.clear();
    return;
  }
  std::vector<Partial> kept;
  for (const Open& one : open) {
    kept.push_back({one.leaves, one.kept != nullptr ? std::move(one.kept->sum)
                                                    : std::vector<float>(one.sum, one.sum + size)});
  }
  stripe.partials = std::move(kept);
}

void ZeroGradients::After(bool computed) {
  if (!computed) PassWithoutRows();
  const std::span<const float> measured = program_.gradients();
  if (piece_ == 0) statistics_.assign(measured.size(), 0.0f);
  for (size_t i = 0; i < measured.size(); ++i) {
    const float value = computed ? measured[i] : 0.0f;
    statistics_[i] = piece_ == 0 ? value : statistics_[i] + value;
  }
  if (++piece_ < pieces_) return;
  piece_ = 0;
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

void ZeroGradients::EndShard(const nn::LossSum& loss) {
  const SplitLoss split = Split(loss);
  rest_.insert(rest_.end(), statistics_.begin(), statistics_.end());
  rest_.insert(rest_.end(), split.begin(), split.end());
  ++round_;
  BeginRound();
}

Result<StepSums> ZeroGradients::Reduce(const Wishes& wishes, uint64_t digest) {
  const int64_t rounds = (shards_ + gang_->size() - 1) / gang_->size();
  // A round in which this rank has no shard: the others have, and nobody looks at what it sends.
  for (; failed_.ok() && round_ < rounds; ++round_) {
    BeginRound();
    for (int piece = 0; visits_ && piece < pieces_; ++piece) After(/*computed=*/false);
    if (visits_) continue;
    for (int i = layout_.stripes(); i-- > 0;) {
      Stripe& stripe = stripes_[static_cast<size_t>(i)];
      stripe.missing = 0;
      if (!layout_.stripe(i).empty()) stripe.filling = MakeStaging(i);
      SendReady();
    }
  }
  while (failed_.ok() && !in_flight_.empty()) failed_ = WaitForOldest();
  LEPTON_RETURN_IF_ERROR(failed_);
  LEPTON_RETURN_IF_ERROR(Mirror().WithContext("gradients of the buddy"));
  return ShareRest(wishes, digest);
}

// Who comes first among two sends first, so that no two wait for each other; in a ring of three the
// last one does not.
Status ZeroGradients::Mirror() {
  const int rank = gang_->rank(), ranks = gang_->size();
  if (ranks == 1) return Status::Ok();
  const int buddy = BuddyOf(rank, ranks), mirrored = MirroredBy(rank, ranks);
  for (int i = 0; i < layout_.stripes(); ++i) {
    Stripe& stripe = stripes_[static_cast<size_t>(i)];
    stripe.own.resize(static_cast<size_t>(layout_.part(rank, i).size()));
    stripe.mirrored.resize(static_cast<size_t>(layout_.part(mirrored, i).size()));
    const auto send = [&] {
      if (stripe.own.empty()) return Status::Ok();
      return gang_->Send(stripe.own.data(), stripe.own.size(), DataType::kFloat32, buddy);
    };
    if (rank < buddy) LEPTON_RETURN_IF_ERROR(send());
    if (!stripe.mirrored.empty()) {
      LEPTON_RETURN_IF_ERROR(gang_->Recv(stripe.mirrored.data(), stripe.mirrored.size(),
                                         DataType::kFloat32, mirrored));
    }
    if (rank > buddy) LEPTON_RETURN_IF_ERROR(send());
  }
  return Status::Ok();
}

// Small, and every rank wants all of it.
Result<StepSums> ZeroGradients::ShareRest(const Wishes& wishes, uint64_t digest) {
  const auto ranks = static_cast<size_t>(gang_->size());
  const size_t rounds = (static_cast<size_t>(shards_) + ranks - 1) / ranks;
  const size_t statistics = program_.gradients().size();
  const size_t leaf = statistics + std::tuple_size_v<SplitLoss>;
  const size_t each = rounds * leaf + TailSize(gang_->size());
  rest_.resize(each);
  WriteTail(std::span(rest_).subspan(rounds * leaf), SplitLoss{}, wishes, gang_->rank(), digest);
  std::vector<float> all(each * ranks);
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(rest_.data(), all.data(), each, DataType::kFloat32)
                             .WithContext("losses and wishes"));
  TreeFold fold(leaf);
  for (size_t shard = 0; shard < static_cast<size_t>(shards_); ++shard) {
    const float* const from = all.data() + shard % ranks * each + shard / ranks * leaf;
    fold.Add({from, leaf});
  }
  std::vector<float> sum(leaf), tail(TailSize(gang_->size()));
  fold.Finish(sum);
  for (size_t rank = 0; rank < ranks; ++rank) {
    AddInto(tail.data(), all.data() + rank * each + rounds * leaf,
            static_cast<int64_t>(tail.size()));
  }
  const std::span<float> measured = program_.gradients();
  std::copy_n(sum.begin(), measured.size(), measured.begin());
  std::copy_n(sum.begin() + static_cast<ptrdiff_t>(statistics), std::tuple_size_v<SplitLoss>,
              tail.begin());
  return ReadTail(tail);
}

std::span<const float> ZeroGradients::Of(const Elements& part) const {
  const int mirrored = MirroredBy(rank_, layout_.ranks());
  for (int i = 0; i < layout_.stripes(); ++i) {
    const Stripe& stripe = stripes_[static_cast<size_t>(i)];
    for (const auto& [holder, sums] :
         {std::pair(rank_, &stripe.own), std::pair(mirrored, &stripe.mirrored)}) {
      const Elements at = layout_.part(holder, i);
      if (!at.Has(part) || static_cast<int64_t>(sums->size()) != at.size()) continue;
      return std::span(*sums).subspan(static_cast<size_t>(part.begin - at.begin),
                                      static_cast<size_t>(part.size()));
    }
  }
  return {};
}

void ZeroGradients::Abandon() {
  for (InFlight& one : in_flight_) (void)one.handle->Wait(Deadline::Never());
  in_flight_.clear();
  for (Stripe& stripe : stripes_) stripe.filling.clear();
  failed_ = Status::Ok();
}

uint64_t ZeroGradients::bytes() const {
  uint64_t floats = pieces_sum_.size() + statistics_.size() + rest_.size();
  for (const Stripe& stripe : stripes_) {
    floats += stripe.own.size() + stripe.mirrored.size();
    for (const Partial& partial : stripe.partials) floats += partial.sum.size();
    floats += stripe.filling.capacity();
  }
  for (const InFlight& one : in_flight_) floats += one.sent.capacity() + one.received.capacity();
  for (const Staging& staging : spare_) floats += staging.capacity();
  return floats * sizeof(float);
}

}  // namespace lepton::worker
