// Which examples each step learns from. Every epoch visits every training example once, in an order
// that is a function of (seed, epoch) alone; the global batch of a step is cut by position into V
// logical shards, and each shard into pieces that are computed one after another. A shard's
// examples depend on the step and V, never on how many ranks there are, which is half of bit-exact
// elasticity (the other half is tree_fold.h). So (seed, epoch, step) name the exact examples: a run
// that is resumed at a step in mid-epoch goes on with the next one. Threads: any; immutable.
// Borrows the teacher's logits for its life.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/data/examples.h"
#include "worker/data/permutation.h"

namespace lepton::worker {

// What is computed at once: a piece of a shard.
struct MicroBatch {
  int shard = 0, piece = 0;
};
// All pieces of these shards, in order.
std::vector<MicroBatch> MicroBatchesOf(std::span<const int> shards, int pieces);

class BatchSource {
 public:
  struct Options {
    int64_t batch_size = 1;  // global; cut to the number of examples
    int shards = 1;          // V
    int pieces = 1;          // of a shard
    uint64_t seed = 0;
    std::span<const float> teacher_logits;  // [examples, outputs], or empty
    int64_t outputs = 0;                    // of the teacher
  };
  // `train` has at least one example.
  BatchSource(ExamplesPtr train, const Options& options);

  // The last batch of an epoch holds what is left.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // Examples of step `step` (0-based) over all shards.
  int64_t BatchRows(uint64_t step) const;
  // Examples of the first `steps` steps.
  uint64_t RowsBefore(uint64_t steps) const;
  // Those of one piece of one shard, in order; none for a piece of a short last batch, maybe.
  std::vector<int64_t> Rows(uint64_t step, int shard, int piece) const;
  // The same with their targets, and out.used says which they are; out.rows() may be 0.
  Status Fill(uint64_t step, int shard, int piece, BatchBuffer& out) const;

  const Options& options() const { return options_; }
  const Examples& examples() const { return *train_; }

 private:
  const ExamplesPtr train_;
  const Options options_;
  const int64_t batch_size_;
  const int64_t steps_per_epoch_;
};

}  // namespace lepton::worker
