// Algorithms over a SharedWindow: every rank of the group on one host. n ranks, B bytes a rank.
//   one-shot all-reduce   copy in B, one flag, reduce n*B straight from the slots: one step
//   sliced all-reduce     in rounds: copy in what others reduce, flag, reduce 1/n of it, flag, copy
//                         out: two steps a round; read and written by each rank about 2*B
//   pair all-reduce       two ranks: each reduces its half where the other wrote it, which reads it
//                         back: every cache line crosses twice, and its owner stays who wrote last
//   reduce-scatter        copy in, flag, reduce the own part of all: one step a round
//   all-gather, broadcast copy in, flag, copy out: one step a round
//   barrier               a round without bytes
#pragma once

#include "collectives/algorithms/algorithm.h"

namespace lepton::collectives {

// Up to so many bytes one flag less is worth more than the bytes that two ranks need not read
// twice; with more ranks, of which some may wait for a core, up to so many more.
inline constexpr size_t kSharedOneShotBytesOfTwo = size_t{8} << 10;
inline constexpr size_t kSharedOneShotBytes = size_t{32} << 10;

// Whether the result is written past the caches: where all ranks' inputs and results do not stay in
// the last one, reading what is overwritten costs as much as reading the input. Ranks may differ.
bool Streamed(const Group& group, const Call& call);

Status SharedOneShotAllReduce(Group& group, const Call& call, Deadline deadline);
Status SharedPairAllReduce(Group& group, const Call& call, Deadline deadline);
Status SharedSlicedAllReduce(Group& group, const Call& call, Deadline deadline);
Status SharedReduceScatter(Group& group, const Call& call, Deadline deadline);
Status SharedAllGather(Group& group, const Call& call, Deadline deadline);
Status SharedBroadcast(Group& group, const Call& call, Deadline deadline);
Status SharedBarrier(Group& group, const Call& call, Deadline deadline);

}  // namespace lepton::collectives
