// Who holds which part of the training state with parallel.zero (docs/decisions/zero.md). The
// trained elements, in the order of the flat buffers, are cut into as many slices as there are
// ranks, at whole blocks of the gradient's norm. Slice i belongs to rank i and is mirrored by its
// buddy, which computes the same from the same. Buddies form pairs, so that one loss in each costs
// nothing; with an odd number of ranks three of them form a ring: 0 -> 2 -> 4 -> 0 and 1 <-> 3. A
// pair is half the gang apart, since neighbours are more likely to share a host.
// Every rank holds two slices, so 2/n of the state for n >= 2.
// Threads: pure.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/nn/training_program.h"

namespace lepton::worker {

// Of the flat buffers; statistics lie behind them.
int64_t TrainedElements(const std::vector<nn::ParameterView>& parameters);

// Elements [begin, end) of the flat buffers.
struct Elements {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool Has(const Elements& other) const { return begin <= other.begin && other.end <= end; }
  friend bool operator==(const Elements&, const Elements&) = default;
};

// Who mirrors rank's slice, and whose slice it mirrors; the rank itself where it is alone.
int BuddyOf(int rank, int ranks);
int MirroredBy(int rank, int ranks);

class ZeroLayout {
 public:
  ZeroLayout(int64_t elements, int ranks) : elements_(elements), ranks_(ranks) {}

  int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  Elements slice(int rank) const;
  // Its own slice, then the one that it mirrors; what is empty is left out.
  std::vector<Elements> HeldBy(int rank) const;
  bool Holds(int rank, int slice) const;
  int64_t largest_slice() const;

 private:
  int64_t elements_;
  int ranks_;
};

}  // namespace lepton::worker
