// Rounds of local SGD (spec.local_sgd; docs/decisions/local_sgd.md). A round is what a step is
// without: the unit that is committed. In it each logical shard takes H steps of its own on its own
// rows, from weights that all ranks share, and with the inner optimiser's state at zeros; then the
// sums over all shards of what they changed, each times its number of predictions, give the outer
// optimiser's gradient. Rounds end at the multiples of H, and at the run's end.
//
// Between rounds the program has the weights that all share, and with the outer optimiser's state
// they are all that another rank or a checkpoint needs. Within a round it has a shard's weights;
// Restore brings back the others.
//
// A shard's part is a function of (these weights, the round, the shard), whoever computes it. So
// in a group of several ranks those of the open round are kept until it is committed: when a rank
// dies, the others do its shards again, and not their own.
// Threads: one caller. Program and optimiser outlive it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "runtime/nn/outer_optimizer.h"
#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"
#include "worker/data/sample_count.h"
#include "worker/train/tree_fold.h"

namespace lepton::worker {

// Null without spec.local_sgd.
std::unique_ptr<nn::OuterOptimizer> MakeOuterOptimizer(const spec::JobSpec& spec,
                                                       const nn::TrainingProgram& program);

class LocalRounds {
 public:
  LocalRounds(nn::TrainingProgram& program, nn::OuterOptimizer& outer, const spec::JobSpec& spec);

  // The step that ends the round in which `step` (0-based) is, of a run to `last_step`; and that
  // which began the round that `end` ended.
  uint64_t EndOf(uint64_t step, uint64_t last_step) const;
  uint64_t BeginOf(uint64_t end) const;

  // ---- a round
  // From here until the round is applied the program's weights are this object's. Parts of another
  // round are forgotten.
  void Begin(uint64_t step, bool keep_parts);
  bool Has(int shard) const { return parts_.contains(shard); }
  // A shard's steps: BeginShard; for each of them, for each piece, the program's ForwardBackward
  // and AddPiece, then Step with the pieces' loss; EndShard with the examples that they used.
  void BeginShard();
  void AddPiece(int piece);
  void Step(uint64_t step, const nn::LossSum& loss);
  void EndShard(int shard, const SampleCount& samples);
  // The examples that a shard's steps used.
  const SampleCount& SamplesOf(int shard) const { return parts_.at(shard).samples; }
  // The program's gradients() become this shard's summand; shards in their order. Returns its loss.
  nn::LossSum Give(int shard);
  // The program has the weights that all share again.
  void Restore();

  // What else is summed over ranks, with the gradients: this rank's summand, and then the sums.
  static constexpr size_t kTailSize = 2;
  void WriteTail(std::span<float> tail);
  void ReadTail(std::span<const float> tail);
  // With the sums of all in gradients(): the mean norm of the steps' gradients. Not finite: one of
  // them was not.
  double norm() const { return norm_; }
  // The outer step; `count` predictions had a target. The round is over.
  void Apply(double count);

  uint64_t bytes() const;

 private:
  struct Part {
    std::vector<float> change;  // times the loss' count
    nn::LossSum loss;
    SampleCount samples;
    double norms = 0;  // over its steps
    int64_t steps = 0;
  };
  enum TailFigure { kNorms, kSteps };

  nn::TrainingProgram& program_;
  nn::OuterOptimizer& outer_;
  const uint64_t inner_steps_;
  const int pieces_;
  uint64_t begin_ = 0;  // of the open round
  bool keeps_ = false;
  std::vector<float> weights_;  // that all share
  std::vector<float> pieces_sum_;
  Part part_;  // of the shard in work
  std::map<int, Part> parts_;
  TreeFold figures_;
  double norm_ = 0;
};

}  // namespace lepton::worker
