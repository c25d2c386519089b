// Which rows each step learns from. Every epoch visits every training row once, in an order that is
// a function of (seed, epoch) alone; the global batch of a step is cut by position into V logical
// shards. A shard's rows depend on the step and V, never on how many ranks there are, which is half
// of bit-exact elasticity (the other half is tree_fold.h).
// Threads: one caller. Borrows the data for its life.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/nn/training_program.h"
#include "worker/train/prepared_data.h"

namespace lepton::worker {

// Place of item `index` in a pseudo-random order of [0, count): a bijection for each (seed, epoch),
// computed without memory (a Feistel network over the next even power of two, walked until it
// lands inside; Black and Rogaway 2002, "cycle walking").
int64_t PermutedIndex(uint64_t seed, uint64_t epoch, int64_t count, int64_t index);

// The ranks hold contiguous shards: shard s of V belongs to floor(s * ranks / V).
inline int RankOfShard(int shard, int shards, int ranks) {
  return static_cast<int>(static_cast<int64_t>(shard) * ranks / shards);
}

// One shard of a step. Valid until the source's next call; rows may be 0 for a short last batch.
struct MicroBatch {
  int64_t rows = 0;
  nn::Batch batch;
  nn::Targets targets;
};

class BatchSource {
 public:
  struct Options {
    int64_t features = 0;
    int64_t outputs = 0;
    int64_t batch_size = 1;  // global; cut to the number of rows
    int shards = 1;          // V
    uint64_t seed = 0;
    std::span<const float> teacher_logits;  // [train rows, outputs], or empty
  };
  // `train` has at least one row.
  BatchSource(const DataPart& train, const Options& options);

  // The last batch of an epoch holds what is left.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // Rows of step `step` (0-based) over all shards.
  int64_t BatchRows(uint64_t step) const;
  MicroBatch Shard(uint64_t step, int shard);

 private:
  const DataPart& train_;
  const Options options_;
  const int64_t batch_size_;
  const int64_t steps_per_epoch_;
  std::vector<float> x_, values_, teacher_;
  std::vector<int32_t> classes_;
};

}  // namespace lepton::worker
