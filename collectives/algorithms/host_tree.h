// How the tree of sums lies over the hosts of a group's ranks. The ranks of a host may cover whole
// subtrees: what they hold of such a *unit* can be added up on the host, and travels to other hosts
// as one partial sum instead of one contribution a rank. Units are as large as they can be; with
// ranks placed host after host, and as many a host, each host is one. Threads: pure.
#pragma once

#include <cstddef>
#include <vector>

namespace lepton::collectives {

struct HostTree {
  struct Unit {
    int host;
    int first;                // of its ranks, which are neighbours
    std::vector<int> splits;  // of the tree over them, as TreeSplits has it
    int ranks() const { return static_cast<int>(splits.size()) + 1; }
  };

  std::vector<int> host_of;                // by rank; hosts are counted as they first appear
  std::vector<std::vector<int>> ranks_of;  // by host, ascending
  std::vector<Unit> units;                 // in the order of the tree's leaves
  std::vector<std::vector<int>> units_of;  // by host: places in `units`, ascending
  std::vector<int> splits;                 // of the tree over units

  int hosts() const { return static_cast<int>(ranks_of.size()); }
  int HostOf(int rank) const { return host_of[rank]; }
  // Of a host's ranks, which one; and the other way around, where a host with fewer ranks than
  // `index` begins anew.
  int IndexOf(int rank) const;
  int RankOf(int host, int index) const {
    const std::vector<int>& ranks = ranks_of[host];
    return ranks[static_cast<size_t>(index) % ranks.size()];
  }
  // Of the host that has most.
  int most_ranks() const;
  // What the host that sends most to others sends in an all-reduce, in multiples of the call's
  // bytes: when each rank gives the others their parts and its sum (owner), and when a partial sum
  // of each unit travels, whose elements are `widening` times as wide, and one result.
  double SentByRanks() const;
  double SentByUnits(double widening) const;
  // The same of a reduce-scatter, whose results stay where they are.
  double ScatteredByRanks() const { return SentByRanks() / 2; }
  double ScatteredByUnits(double widening) const;
};

// `splits`: TreeSplits of the ranks. hosts[r] names the host of rank r: any number for each.
HostTree MakeHostTree(const std::vector<int>& splits, const std::vector<int>& hosts);

}  // namespace lepton::collectives
