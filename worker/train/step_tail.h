// What rides behind the gradient in a step's one reduction, so that it costs no round trip of its
// own: the loss, what ranks wish for, which examples they used, and a digest of each rank's
// parameters. All of it is float32 and is added like the gradient.
// Threads: pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/nn/training_program.h"
#include "worker/data/sample_count.h"

namespace lepton::worker {

// The sum and the count of a loss, each a double in two floats, so that they can be folded and
// reduced like gradients.
using SplitLoss = std::array<float, 4>;
SplitLoss Split(const nn::LossSum& loss);
nn::LossSum Join(const SplitLoss& split);

// What a rank wishes for at the end of the step.
struct Wishes {
  bool stop = false;     // all ranks stop
  bool leave = false;    // this rank goes
  bool regroup = false;  // the group ends, for somebody joins
  bool written = false;  // no wish: its slice of the checkpoint that is under way is durable
};

// A rank's own, beside the loss.
struct RankWord {
  Wishes wishes;
  SampleCount samples;  // that it used in the step
  uint64_t digest = 0;  // of its parameters
};

// The sums over ranks.
struct StepSums {
  nn::LossSum loss;
  int stop = 0, leave = 0, regroup = 0;  // ranks that wish for it
  int written = 0;                       // ranks of which it is true
  SampleCount samples;
  std::vector<uint64_t> digests;  // by rank: of its parameters
};

size_t TailSize(int ranks);  // floats
// A rank's summand. The digest stands in the rank's own place; in those of the others is a zero.
// Exact for up to 4,096 ranks.
void WriteTail(std::span<float> tail, const SplitLoss& loss, int rank, const RankWord& word);
StepSums ReadTail(std::span<const float> tail);

}  // namespace lepton::worker
