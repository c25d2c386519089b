// Who holds which part of the training state with parallel.zero (docs/decisions/zero.md). The
// trained elements, in the order of the flat buffers, are cut into as many slices as there are
// ranks, at whole blocks of the gradient's norm. Slice i belongs to rank i and is mirrored by its
// buddy, which computes the same from the same. Buddies form pairs, so that one loss in each costs
// nothing; with an odd number of ranks three of them form a ring: 0 -> 2 -> 4 -> 0 and 1 <-> 3. A
// pair is half the gang apart, since neighbours are more likely to share a host.
// Every rank holds two slices, so 2/n of the state for n >= 2.
//
// A slice need not be in one piece: the elements are cut into stripes first, and each stripe among
// the ranks, so that all have work when the gradients of one stripe are there. Who has which part
// turns by one rank from stripe to stripe, since parts are of whole blocks and not quite equal.
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
  ZeroLayout(int64_t elements, int ranks, int stripes = 1)
      : elements_(elements), ranks_(ranks), stripes_(stripes) {}

  int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  int stripes() const { return stripes_; }
  Elements stripe(int number) const;
  // Of a rank's slice in a stripe; may be empty.
  Elements part(int rank, int stripe) const;
  // Whose part is the `position`th of the stripe.
  int OwnerAt(int position, int stripe) const {
    return ((position - stripe) % ranks_ + ranks_) % ranks_;
  }
  // A rank's slice: its parts that are not empty, in order.
  std::vector<Elements> slice(int rank) const;
  int64_t slice_size(int rank) const;
  int64_t largest_slice() const;
  // The parts of its own slice, then of the one that it mirrors.
  std::vector<Elements> HeldBy(int rank) const;
  bool Holds(int rank, int slice) const;

 private:
  Elements Blocks(int64_t begin, int64_t end) const;

  int64_t elements_;
  int ranks_, stripes_;
};

// How many stripes make sense: of at least `stripe_bytes`, with a block for each rank, and not more
// than 64. Does not depend on the number of ranks that are there.
int StripesFor(int64_t elements, int64_t stripe_bytes, int most_ranks);

}  // namespace lepton::worker
