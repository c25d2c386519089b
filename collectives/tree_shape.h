// The shape of the tree in which everything is summed: a tree over `leaves`, of which each rank
// holds a whole subtree, so that the sum has the same bits for any number of ranks up to `leaves`.
//
// A node over n leaves splits behind the largest power of two below n. It is given to its p ranks
// in proportion to its halves' leaves, at least one each; the ranks of a half are contiguous. Down
// to one rank, which holds all that is left and sums it by the same rule. For 8 leaves:
//   2 ranks: 4 4    3: 2 2 4    4: 2 2 2 2    5: 1 1 2 2 2    6: 1 1 2 1 1 2    7: 1 1 1 1 1 1 2
// With more ranks than leaves, those without one add what keeps the bits: -0.0, or an integer's 0.
// The last ranks may be kept out (`holders` < ranks): then all leaves are held by the first ones as
// if there were no others, whose tree is the root's right half.
// With as many leaves as ranks it is the tree over ranks ((0+1)+(2+3))+...
// Threads: pure.
#pragma once

#include <vector>

namespace lepton::collectives {

// The largest power of two below n (n >= 2).
int TreeSplit(int n);

// How many of a node's `ranks` (>= 2) sum its left half.
int RanksOnTheLeft(int ranks, int leaves);

struct LeafRange {
  int begin = 0, end = 0;
};
// What a rank holds; empty for a rank without a leaf, as those from `ranks` on are.
LeafRange LeavesOf(int rank, int ranks, int leaves);

// The tree over ranks, as the reduction's loops want it: for every node of at least two ranks how
// many are on its left, in preorder. So node i's left child is i + 1 and its right one i +
// splits[i].
std::vector<int> TreeSplits(int ranks, int leaves);
std::vector<int> TreeSplits(int ranks, int leaves, int holders);

}  // namespace lepton::collectives
