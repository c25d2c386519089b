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

Elements ZeroLayout::slice(int rank) const {
  const int64_t blocks = (elements_ + nn::kNormBlock - 1) / nn::kNormBlock;
  const auto cut = [&](int64_t i) {
    return std::min(elements_, blocks * i / ranks_ * nn::kNormBlock);
  };
  return {cut(rank), cut(rank + 1)};
}

std::vector<Elements> ZeroLayout::HeldBy(int rank) const {
  std::vector<Elements> held;
  const int mirrored = MirroredBy(rank, ranks_);
  for (const int one : {rank, mirrored}) {
    if (one == mirrored && one == rank && !held.empty()) continue;
    if (!slice(one).empty()) held.push_back(slice(one));
  }
  return held;
}

bool ZeroLayout::Holds(int rank, int slice) const {
  return rank == slice || BuddyOf(slice, ranks_) == rank;
}

int64_t ZeroLayout::largest_slice() const {
  int64_t most = 0;
  for (int rank = 0; rank < ranks_; ++rank) most = std::max(most, slice(rank).size());
  return most;
}

}  // namespace lepton::worker
