// Algorithms over links alone. n ranks, B bytes a rank; bytes sent are those of the busiest rank.
//   exchange all-reduce   everybody sends all to all, each reduces: 1 step, (n-1)*B sent
//   doubling all-reduce   2^k ranks, whose tree is balanced: swaps partial sums with ever farther
//                         neighbours: log2 n steps, B*log2 n sent (twice that for 16-bit floats)
//   halving all-reduce    2^k ranks, likewise: swaps halves of partial sums with ever farther
//                         neighbours, then the finished parts back: 2*log2 n steps, 2*B*(n-1)/n
//                         sent (half as much again for 16-bit floats)
//   tree all-reduce       up the reduction's own tree as partial sums and down again:
//                         2*ceil(log2 n) steps, at most B*log2 n sent (twice that for 16-bit
//                         floats, whose partial sums travel as float32)
//   owner all-reduce      in k blocks: part r of all to rank r, which reduces it;
//                         then all parts to all, while the next block's travel: k+1 steps,
//                         2*B*(n-1)/n sent, as a ring, but in tree order
//   hierarchical all-reduce  owner all-reduce among hosts, of what their ranks have added up over
//                         shared memory (host_tree.h): with H hosts, R ranks on the largest and k+3
//                         steps for k blocks, the largest sends 2*B*(H-1)/H to others instead of
//                         2*B*R*(n-R)/n, where its ranks hold a subtree
//   owner reduce-scatter  the first half of owner all-reduce: 1 step, (n-1) parts sent
//   hierarchical reduce-scatter  hosts add up what they can of every part, and send its rank the
//                         partial sums: k+1 steps for k blocks; a host whose ranks hold a subtree
//                         sends the (n-R) parts of other hosts' ranks once, not R times
//   exchange all-gather   1 step, (n-1)*B sent
//   hierarchical all-gather  every rank's bytes once to each other host, and on from there: 2 steps
//                         that overlap; a host of R ranks sends R*B*(H-1) to others, not R*B*(n-R)
//   hierarchical broadcast  binomial among hosts, then among the ranks of each
//   binomial broadcast    ceil(log2 n) steps, at most B*ceil(log2 n) sent
//   direct gather, scatter, all-to-all: every part straight to its rank: 1 step; B, (n-1)*B,
//   (n-1)*B dissemination barrier ceil(log2 n) steps of one byte
#pragma once

#include "collectives/algorithms/algorithm.h"

namespace lepton::collectives {

Status ExchangeAllReduce(Group& group, const Call& call, Deadline deadline);
Status DoublingAllReduce(Group& group, const Call& call, Deadline deadline);
Status HalvingAllReduce(Group& group, const Call& call, Deadline deadline);
Status TreeAllReduce(Group& group, const Call& call, Deadline deadline);
Status OwnerAllReduce(Group& group, const Call& call, Deadline deadline);
Status HierarchicalAllReduce(Group& group, const Call& call, Deadline deadline);
Status OwnerReduceScatter(Group& group, const Call& call, Deadline deadline);
Status HierarchicalReduceScatter(Group& group, const Call& call, Deadline deadline);
Status ExchangeAllGather(Group& group, const Call& call, Deadline deadline);
Status HierarchicalAllGather(Group& group, const Call& call, Deadline deadline);
Status HierarchicalBroadcast(Group& group, const Call& call, Deadline deadline);
Status BinomialBroadcast(Group& group, const Call& call, Deadline deadline);
Status DirectGather(Group& group, const Call& call, Deadline deadline);
Status DirectScatter(Group& group, const Call& call, Deadline deadline);
Status DirectAllToAll(Group& group, const Call& call, Deadline deadline);
Status DisseminationBarrier(Group& group, const Call& call, Deadline deadline);

// What binomial broadcasts are made of: among some of the ranks, from `source`, which is one of
// them; the others return at once.
Status BroadcastAmong(Group& group, const std::vector<int>& ranks, int source, void* data,
                      size_t bytes, Deadline deadline);

}  // namespace lepton::collectives
