#include "worker/train/zero_gradients.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

// One stripe travels while the next one is computed.
constexpr size_t kMostInFlight = 1;

// The sum and the count, to the bit, in what an all-gather of floats carries.
using LossBits = std::array<float, 4>;

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

std::vector<MicroBatch> ZeroGradients::MicroBatchesOf(int rank, int ranks, int shards, int pieces) {
  std::vector<MicroBatch> mine;
  for (int number = rank; number < shards * pieces; number += ranks) {
    mine.push_back({number / pieces, number % pieces});
  }
  return mine;
}

// The smallest that is large enough, since parts differ by a block; or one in place of the largest.
std::vector<float> ZeroGradients::Stripe::Take(int64_t size) {
  const auto wanted = static_cast<size_t>(size);
  const auto suits_better = [wanted](const std::vector<float>& a, const std::vector<float>& b) {
    const bool enough = a.capacity() >= wanted;
    if (enough != (b.capacity() >= wanted)) return enough;
    return enough ? a.capacity() < b.capacity() : a.capacity() > b.capacity();
  };
  const auto best = std::min_element(spare.begin(), spare.end(), suits_better);
  if (best == spare.end()) return std::vector<float>(wanted);
  std::vector<float> taken = std::move(*best);
  spare.erase(best);
  if (taken.capacity() < wanted) taken = {};
  taken.resize(wanted);
  return taken;
}

// The sums of the step before are not needed any more, nor those of one that was not finished.
void ZeroGradients::Stripe::Recycle() {
  for (Partial& partial : partials) spare.push_back(std::move(partial.sum));
  partials.clear();
  for (std::vector<float>* const sums : {&own, &mirrored}) {
    if (sums->capacity() > 0) spare.push_back(std::exchange(*sums, {}));
  }
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
  if (layout.ranks() != layout_.ranks() || layout.stripes() != layout_.stripes() ||
      gang.rank() != rank_) {
    spare_.clear();
    stripes_.clear();
  }
  gang_ = &gang;
  rank_ = gang.rank();
  layout_ = layout;
  stripes_.resize(static_cast<size_t>(layout.stripes()));
  for (Stripe& stripe : stripes_) stripe.Recycle();
  rest_.clear();
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
  Pack(view.offset, blank_ ? zeros_ : program_.gradient(parameter));
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

// A shard is the sum of its pieces, added in order. Then it is like a binary counter: two complete
// subtrees of a size become one. What is left at the end is added from the right: an incomplete
// subtree to the complete one on its left.
void ZeroGradients::Fold(InFlight& done) {
  Stripe& stripe = stripes_[static_cast<size_t>(done.stripe)];
  const int64_t size = layout_.part(gang_->rank(), done.stripe).size();
  const int64_t each = PartSize(done.stripe);
  struct Open {
    int64_t shards;
    float* sum;
    Partial* kept;
  };
  std::vector<Open> open;
  for (Partial& partial : stripe.partials) {
    open.push_back({partial.shards, partial.sum.data(), &partial});
  }
  const int64_t first = done.round * gang_->size();
  const int64_t end = std::min(first + gang_->size(), micro_batches());
  for (int64_t number = first; number < end; ++number) {
    float* const values = done.received.data() + (number - first) * each;
    if (number % pieces_ > 0) {
      AddInto(open.back().sum, values, size);
    } else {
      open.push_back({1, values, nullptr});
    }
    if ((number + 1) % pieces_ > 0) continue;
    while (open.size() > 1 && open[open.size() - 2].shards == open.back().shards) {
      AddInto(open[open.size() - 2].sum, open.back().sum, size);
      open[open.size() - 2].shards *= 2;
      open.pop_back();
    }
  }
  const bool last = end == micro_batches();
  for (; last && open.size() > 1; open.pop_back()) {
    AddInto(open[open.size() - 2].sum, open.back().sum, size);
  }
  // What is still open of what was kept comes first.
  std::vector<Partial>& kept = stripe.partials;
  const auto merged = [&](size_t i) { return i >= open.size() || open[i].kept != &kept[i]; };
  while (!kept.empty() && merged(kept.size() - 1)) {
    stripe.spare.push_back(std::move(kept.back().sum));
    kept.pop_back();
  }
  for (size_t i = 0; i < open.size(); ++i) {
    if (i == kept.size()) {
      kept.push_back({0, stripe.Take(size)});
      std::copy_n(open[i].sum, size, kept.back().sum.begin());
    }
    kept[i].shards = open[i].shards;
  }
  if (!last) return;
  stripe.own = std::move(stripe.partials[0].sum);
  stripe.partials.clear();
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

Result<StepSums> ZeroGradients::Reduce(const Wishes& wishes, uint64_t digest) {
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
    stripe.mirrored = stripe.Take(layout_.part(mirrored, i).size());
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
  const size_t statistics = program_.gradients().size();
  const size_t leaf = statistics + std::tuple_size_v<SplitLoss>;
  static_assert(std::tuple_size_v<SplitLoss> == std::tuple_size_v<LossBits>);
  const size_t micro_batches = static_cast<size_t>(rounds()) * leaf;
  const size_t each = micro_batches + TailSize(gang_->size());
  rest_.resize(each);
  WriteTail(std::span(rest_).subspan(micro_batches), SplitLoss{}, wishes, gang_->rank(), digest);
  std::vector<float> all(each * ranks);
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(rest_.data(), all.data(), each, DataType::kFloat32)
                             .WithContext("losses and wishes"));
  TreeFold fold(leaf);
  std::vector<float> of_shard(leaf);
  for (size_t number = 0, shard = 0; shard < static_cast<size_t>(shards_); ++shard) {
    nn::LossSum loss;
    for (int piece = 0; piece < pieces_; ++piece, ++number) {
      const float* const from = all.data() + number % ranks * each + number / ranks * leaf;
      if (piece == 0) std::copy_n(from, statistics, of_shard.begin());
      if (piece > 0) AddInto(of_shard.data(), from, static_cast<int64_t>(statistics));
      LossBits bits;
      std::copy_n(from + statistics, bits.size(), bits.begin());
      const auto [sum, count] = std::bit_cast<std::array<double, 2>>(bits);
      loss.sum += sum;
      loss.count += count;
    }
    const SplitLoss split = Split(loss);
    std::copy(split.begin(), split.end(), of_shard.begin() + static_cast<ptrdiff_t>(statistics));
    fold.Add(of_shard);
  }
  std::vector<float> sum(leaf), tail(TailSize(gang_->size()));
  fold.Finish(sum);
  for (size_t rank = 0; rank < ranks; ++rank) {
    AddInto(tail.data(), all.data() + rank * each + micro_batches,
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
