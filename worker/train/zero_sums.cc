// What has come to a slice's owner, and goes on to its buddy: partial sums, and the sums (see
// zero_gradients.h).
#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "runtime/base/progress.h"
#include "worker/train/tree_fold.h"
#include "worker/train/zero_gradients.h"

namespace lepton::worker {
namespace {

void AddInto(float* left, const float* right, int64_t count) {
  for (int64_t i = 0; i < count; ++i) left[i] += right[i];
}

}  // namespace

std::vector<float> ZeroGradients::TakeFrom(std::vector<std::vector<float>>& spare, int64_t size) {
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
  const int64_t first = done.round * workers_;
  const int64_t end = std::min(first + workers_, micro_batches());
  const auto merge = [&open, size] {
    while (open.size() > 1 && open[open.size() - 2].shards == open.back().shards) {
      AddInto(open[open.size() - 2].sum, open.back().sum, size);
      open[open.size() - 2].shards *= 2;
      open.pop_back();
    }
  };
  if (Summed(done.round)) {
    open.push_back({gang_->size(), done.received.data(), nullptr});
    merge();
  }
  for (int64_t number = Summed(done.round) ? end : first; number < end; ++number) {
    float* const values = done.received.data() + (number - first) * each;
    if (number % pieces_ > 0) {
      AddInto(open.back().sum, values, size);
    } else {
      open.push_back({1, values, nullptr});
    }
    if ((number + 1) % pieces_ == 0) merge();
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
      kept.push_back({0, TakeFrom(stripe.spare, size)});
      std::copy_n(open[i].sum, size, kept.back().sum.begin());
    }
    kept[i].shards = open[i].shards;
  }
  if (!last) return;
  stripe.own = std::move(stripe.partials[0].sum);
  stripe.partials.clear();
  Mirror(done.stripe);
}

// The sums of a stripe, as soon as they are there: all ranks come to this in the same order.
void ZeroGradients::Mirror(int number) {
  const int mirrored = layout_.mirrored(rank_, number);
  if (mirrored == rank_) return;
  Stripe& stripe = stripes_[static_cast<size_t>(number)];
  stripe.mirrored = TakeFrom(stripe.spare, layout_.part(mirrored, number).size());
  mirrors_.push_back(gang_->SendRecvAsync(
      {stripe.own.data(), stripe.own.size(), layout_.buddy(rank_, number)},
      {stripe.mirrored.data(), stripe.mirrored.size(), mirrored}, collectives::DataType::kFloat32));
}

Status ZeroGradients::WaitForMirrors() {
  const progress::Waiting waiting;
  Status status;
  for (const collectives::HandlePtr& handle : mirrors_) {
    if (status.ok()) status = handle->Wait(Deadline::Never());
  }
  mirrors_.clear();
  return status.WithContext("gradients of the buddy");
}

// Small, and every rank wants all of it.
Result<StepSums> ZeroGradients::ShareRest(const RankWord& word) {
  const auto ranks = static_cast<size_t>(gang_->size());
  const auto workers = static_cast<size_t>(workers_);
  const size_t statistics = program_.gradients().size();
  const size_t leaf = statistics + std::tuple_size_v<SplitLoss>;
  static_assert(std::tuple_size_v<SplitLoss> == std::tuple_size_v<LossBits>);
  const size_t micro_batches = static_cast<size_t>(rounds()) * leaf;
  const size_t each = micro_batches + TailSize(gang_->size());
  rest_.resize(each);
  WriteTail(std::span(rest_).subspan(micro_batches), SplitLoss{}, gang_->rank(), word);
  std::vector<float> all(each * ranks);
  LEPTON_RETURN_IF_ERROR(
      gang_->AllGather(rest_.data(), all.data(), each, collectives::DataType::kFloat32)
          .WithContext("losses and wishes"));
  TreeFold fold(leaf);
  std::vector<float> of_shard(leaf);
  for (size_t number = 0, shard = 0; shard < static_cast<size_t>(shards_); ++shard) {
    nn::LossSum loss;
    for (int piece = 0; piece < pieces_; ++piece, ++number) {
      const float* const from = all.data() + number % workers * each + number / workers * leaf;
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
  for (int i = 0; i < layout_.stripes(); ++i) {
    const Stripe& stripe = stripes_[static_cast<size_t>(i)];
    for (const auto& [holder, sums] :
         {std::pair(rank_, &stripe.own), std::pair(layout_.mirrored(rank_, i), &stripe.mirrored)}) {
      const Elements at = layout_.part(holder, i);
      if (!at.Has(part) || static_cast<int64_t>(sums->size()) != at.size()) continue;
      return std::span(*sums).subspan(static_cast<size_t>(part.begin - at.begin),
                                      static_cast<size_t>(part.size()));
    }
  }
  return {};
}

}  // namespace lepton::worker
