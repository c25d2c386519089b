#include "collectives/tree_shape.h"

#include <algorithm>

namespace lepton::collectives {
namespace {

int LeavesOnTheLeft(int leaves) {
  return leaves < 2 ? leaves : TreeSplit(leaves);
}

void AppendSplits(int ranks, int leaves, std::vector<int>& splits) {
  if (ranks < 2) return;
  // One leaf and several ranks: the others add nothing, in the tree over these ranks.
  if (leaves < 2) leaves = ranks;
  const int left = RanksOnTheLeft(ranks, leaves);
  splits.push_back(left);
  AppendSplits(left, LeavesOnTheLeft(leaves), splits);
  AppendSplits(ranks - left, leaves - LeavesOnTheLeft(leaves), splits);
}

}  // namespace

int TreeSplit(int n) {
  int split = 1;
  while (split * 2 < n) split *= 2;
  return split;
}

int RanksOnTheLeft(int ranks, int leaves) {
  if (leaves < 2) return TreeSplit(ranks);
  const int left = TreeSplit(leaves), right = leaves - left;
  const int share = (2 * ranks * left + leaves) / (2 * leaves);
  return ranks <= leaves ? std::clamp(share, std::max(1, ranks - right), std::min(left, ranks - 1))
                         : std::clamp(share, left, ranks - right);
}

LeafRange LeavesOf(int rank, int ranks, int leaves) {
  if (rank >= ranks) return {leaves, leaves};
  int first = 0;
  while (ranks > 1 && leaves > 1) {
    const int left = RanksOnTheLeft(ranks, leaves), left_leaves = TreeSplit(leaves);
    if (rank < left) {
      ranks = left;
      leaves = left_leaves;
    } else {
      rank -= left;
      ranks -= left;
      first += left_leaves;
      leaves -= left_leaves;
    }
  }
  return rank == 0 ? LeafRange{first, first + leaves} : LeafRange{first + leaves, first + leaves};
}

std::vector<int> TreeSplits(int ranks, int leaves) {
  std::vector<int> splits;
  AppendSplits(ranks, leaves, splits);
  return splits;
}

std::vector<int> TreeSplits(int ranks, int leaves, int holders) {
  if (holders >= ranks) return TreeSplits(ranks, leaves);
  std::vector<int> splits = {holders};
  AppendSplits(holders, leaves, splits);
  AppendSplits(ranks - holders, 1, splits);
  return splits;
}

}  // namespace lepton::collectives
