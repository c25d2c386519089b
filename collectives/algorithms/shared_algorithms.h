// Algorithms over a SharedWindow: every rank of the group on one host. n ranks, B bytes a rank.
//   one-shot all-reduce   copy in B, one flag, reduce n*B straight from the slots: one step
//   sliced all-reduce     for each megabyte: copy in, flag, reduce 1/n of it in place, flag, copy
//   out
//                         the other slices: two steps, about 4*B read and 2*B written by each rank
//   reduce-scatter        copy in, flag, reduce the own part of all: one step a round
//   all-gather, broadcast copy in, flag, copy out: one step a round
//   barrier               a round without bytes
#pragma once

#include "collectives/algorithms/algorithm.h"

namespace lepton::collectives {

inline constexpr size_t kSharedOneShotBytes = size_t{32} << 10;

Status SharedOneShotAllReduce(Group& group, const Call& call, Deadline deadline);
Status SharedSlicedAllReduce(Group& group, const Call& call, Deadline deadline);
Status SharedReduceScatter(Group& group, const Call& call, Deadline deadline);
Status SharedAllGather(Group& group, const Call& call, Deadline deadline);
Status SharedBroadcast(Group& group, const Call& call, Deadline deadline);
Status SharedBarrier(Group& group, const Call& call, Deadline deadline);

}  // namespace lepton::collectives
