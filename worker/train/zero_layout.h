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
//
// While ranks join, the first stripes are cut among all ranks already, and the others still among
// those that were there before, the first ones: the holders (zero_join.cc moves stripes over).
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
      : elements_(elements), ranks_(ranks), stripes_(stripes), holders_(ranks) {}
  // A group that others join, up to `ranks`: `over` stripes, the first ones, are cut among all.
  ZeroLayout Joined(int ranks, int over) const;

  int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  int stripes() const { return stripes_; }
  // How many ranks a stripe is cut among.
  int holders(int stripe) const { return stripe < over_ ? ranks_ : holders_; }
  int holders_before() const { return holders_; }
  int stripes_over() const { return over_; }
  bool joining() const { return holders_ < ranks_ && over_ < stripes_; }
  Elements stripe(int number) const;
  // Of a rank's slice in a stripe; may be empty.
  Elements part(int rank, int stripe) const;
  // Whose part is the `position`th of the stripe, of as many as it has holders.
  int OwnerAt(int position, int stripe) const {
    const int among = holders(stripe);
    return ((position - stripe) % among + among) % among;
  }
  // Of a rank's part in a stripe: who mirrors it, and whose part it mirrors; the rank itself where
  // it is alone, or has none.
  int buddy(int rank, int stripe) const;
  int mirrored(int rank, int stripe) const;
  // A rank's slice: its parts that are not empty, in order.
  std::vector<Elements> slice(int rank) const;
  int64_t slice_size(int rank) const;
  int64_t largest_slice() const;
  // The parts of its own slice, then of the one that it mirrors.
  std::vector<Elements> HeldBy(int rank) const;
  // Whether a rank has the part of another, or its own, in a stripe.
  bool Holds(int rank, int owner, int stripe) const {
    return rank == owner || buddy(owner, stripe) == rank;
  }
  // Every rank holds every slice.
  bool everywhere() const { return ranks_ <= 2 && !joining(); }

 private:
  Elements Blocks(int64_t begin, int64_t end) const;

  int64_t elements_;
  int ranks_, stripes_;
  int holders_, over_ = 0;
};

// How many stripes make sense: of at least `stripe_bytes`, with a block for each rank, and not more
// than 64. Does not depend on the number of ranks that are there.
int StripesFor(int64_t elements, int64_t stripe_bytes, int most_ranks);

}  // namespace lepton::worker
