#include "worker/train/zero_layout.h"

#include <algorithm>

#include "runtime/nn/optimizers.h"

namespace lepton::worker {

int64_t TrainedElements(const std::vector<nn::ParameterView>& parameters) {
  int64_t trained = 0;
  for (const nn::ParameterView& view : parameters) {
    if (!view.statistic) trained = std::max(trained, view.offset + view.size);
  }
  return trained;
}

int BuddyOf(int rank, int ranks) {
  if (ranks == 1) return 0;
  const int half = ranks / 2;
  if (ranks % 2 == 0) return (rank + half) % ranks;
  if (rank == 0) return half;
  if (rank == half) return ranks - 1;
  if (rank == ranks - 1) return 0;
  return rank < half ? rank + half : rank - half;
}

int MirroredBy(int rank, int ranks) {
  for (int other = 0; other < ranks; ++other) {
    if (BuddyOf(other, ranks) == rank) return other;
  }
  return rank;
}

namespace {

int64_t NormBlocks(int64_t elements) {
  return (elements + nn::kNormBlock - 1) / nn::kNormBlock;
}

}  // namespace

Elements ZeroLayout::Blocks(int64_t begin, int64_t end) const {
  return {std::min(elements_, begin * nn::kNormBlock), std::min(elements_, end * nn::kNormBlock)};
}

Elements ZeroLayout::stripe(int number) const {
  const int64_t blocks = NormBlocks(elements_);
  return Blocks(blocks * number / stripes_, blocks * (number + 1) / stripes_);
}

ZeroLayout ZeroLayout::Joined(int ranks, int over) const {
  ZeroLayout joined = *this;
  joined.ranks_ = ranks;
  joined.over_ = over;
  return joined;
}

int ZeroLayout::buddy(int rank, int stripe) const {
  return rank < holders(stripe) ? BuddyOf(rank, holders(stripe)) : rank;
}

int ZeroLayout::mirrored(int rank, int stripe) const {
  return rank < holders(stripe) ? MirroredBy(rank, holders(stripe)) : rank;
}

Elements ZeroLayout::part(int rank, int stripe) const {
  const int among = holders(stripe);
  if (rank >= among) return {};
  const int64_t all = NormBlocks(elements_);
  const int64_t first = all * stripe / stripes_;
  const int64_t blocks = all * (stripe + 1) / stripes_ - first;
  const int64_t position = (rank + stripe) % among;
  return Blocks(first + blocks * position / among, first + blocks * (position + 1) / among);
}

std::vector<Elements> ZeroLayout::slice(int rank) const {
  std::vector<Elements> parts;
  for (int i = 0; i < stripes_; ++i) {
    if (const Elements one = part(rank, i); !one.empty()) parts.push_back(one);
  }
  return parts;
}

int64_t ZeroLayout::slice_size(int rank) const {
  int64_t size = 0;
  for (const Elements& part : slice(rank)) size += part.size();
  return size;
}

int64_t ZeroLayout::largest_slice() const {
  int64_t most = 0;
  for (int rank = 0; rank < ranks_; ++rank) most = std::max(most, slice_size(rank));
  return most;
}

std::vector<Elements> ZeroLayout::HeldBy(int rank) const {
  std::vector<Elements> held = slice(rank);
  for (int i = 0; i < stripes_; ++i) {
    const int other = mirrored(rank, i);
    if (const Elements one = part(other, i); other != rank && !one.empty()) held.push_back(one);
  }
  return held;
}

int StripesFor(int64_t elements, int64_t stripe_bytes, int most_ranks) {
  constexpr int64_t kMost = 64;
  const int64_t by_bytes = elements * static_cast<int64_t>(sizeof(float)) / stripe_bytes;
  const int64_t by_blocks = NormBlocks(elements) / most_ranks;
  return static_cast<int>(std::clamp<int64_t>(std::min(by_bytes, by_blocks), 1, kMost));
}

}  // namespace lepton::worker
