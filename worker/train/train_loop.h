// The one training loop, under train, trial and distillation tasks. Every rank of the gang runs it
// with equal arguments. One step:
//   1. each rank runs forward and backward over each of its logical shards of the global batch
//      (worker/data/batch_source.h; assembled ahead by batch_feeder.h), in spec.accumulate pieces
//      whose gradients are added in order, and folds the shards' gradients in a fixed tree
//      (tree_fold.h);
//   2. all-reduces of [gradient, loss, wishes, digests], whose first parts travel during 1
//      (gradient_exchange.h): every rank now knows the same sums;
//   3. ranks whose parameters differ from those of most ranks end here (divergence.h);
//   4. a loss or gradient norm that is not finite ends the run on all ranks;
//   5. each rank applies the same update to its own copy of the weights; with parallel.zero to its
//      slices, and gets the others (zero_state.h).
// The weights have the same bits for any number of ranks.
// With local_sgd each rank takes many steps with each of its shards before 2, and 5 is a step of
// the outer optimiser with what that changed (local_rounds.h): where other comments say step, that
// is then a round.
// Threads: the gang's calls and the observer's are made on the caller's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/nn/outer_optimizer.h"
#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"
#include "storage/checkpoints/checkpoint.h"
#include "storage/objects/object_store.h"
#include "worker/data/prepared_data.h"
#include "worker/data/sample_count.h"
#include "worker/parting.h"
#include "worker/train/tensor_gang.h"
#include "worker/train/zero_state.h"

namespace lepton::worker {

using Metrics = std::map<std::string, double>;

struct TrainProgress {
  uint64_t step = 0;  // steps done
  double epoch = 0;
  double samples_per_second = 0;
  std::optional<SampleCount> samples;  // of all steps done; none where nobody knows
  Metrics metrics;
};

// Where a checkpoint is taken.
struct CheckpointPoint {
  uint64_t step = 0;
  Metrics metrics;
  std::optional<SampleCount> samples;  // as in TrainProgress
  nn::LossSum epoch_loss;              // of the epoch so far
};

// What ranks learn when they do not hold the same parameters (divergence.h).
struct Divergence {
  uint64_t step = 0;   // in flight; its gradient was not applied
  std::string tensor;  // the first that differs
  int agreeing = 0;    // ranks that hold the same; 0: no majority does
  int ranks = 0;       // of the group
};

// What a loop does to the world. Progress is called on rank 0 only.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  // True once the run should end at the next step boundary. Asked on every rank.
  virtual bool StopRequested() = 0;
  // Of an elastic gang: this rank leaves, or the group ends, after the step.
  virtual bool LeaveRequested() { return false; }
  virtual bool RegroupRequested() { return false; }
  // On every rank, between its own gradient of a step and the reduction; with local_sgd behind each
  // of its shards' steps too. An error is one of computing the step.
  virtual Status Computed(uint64_t, nn::TrainingProgram&) { return {}; }
  // On every rank, between the reduction of a step and its update.
  virtual void Reduced() {}
  // On a rank that joins, between the reduction and the update, while a piece of the state is on
  // its way to it beside the step.
  virtual void StateArrives() {}
  // On every rank, after each update.
  virtual void Committed(uint64_t) {}
  // On a rank that is not to be trusted any more; the loop ends with kDataLoss.
  virtual void Diverged(const Divergence&) {}
  virtual void Progress(const TrainProgress& progress) = 0;
  // A checkpoint, in slices that ranks write beside the steps, and a manifest that one of them
  // writes when all slices are durable. Each of the three begins one of it: on return all that it
  // needs of the state is copied. Ready when that is durable, with the object's digest, or failed.
  using CheckpointDone = std::future<Result<storage::Digest>>;
  using Slices = std::vector<storage::CheckpointSlice>;
  // An observer that takes none has none to begin.
  virtual CheckpointDone BeginSlice(uint64_t, int /*number*/, const Slices&) { return Refuse(); }
  virtual CheckpointDone BeginManifest(const CheckpointPoint&,
                                       const std::vector<storage::Digest>& /*slices*/) {
    return Refuse();
  }
  // Both, by a rank that has all of the state: the manifest's digest.
  virtual CheckpointDone BeginCheckpoint(const CheckpointPoint&, const Slices&) { return Refuse(); }

 private:
  static CheckpointDone Refuse() {
    std::promise<Result<storage::Digest>> done;
    done.set_value(Internal("this observer takes no checkpoints"));
    return done.get_future();
  }
};

struct TrainRun {
  const spec::JobSpec& spec;  // batch size, shards, pieces, seed, checkpoint interval
  const PreparedData& data;
  nn::TrainingProgram& program;
  nn::OuterOptimizer* outer = nullptr;    // MakeOuterOptimizer's
  collectives::Communicator& gang;        // of RunTrainLoop
  TensorGang* tensor = nullptr;           // parallel.tensor: of that gang
  std::span<const float> teacher_logits;  // [train rows, outputs] when distilling
  uint64_t first_step = 0;                // steps done before
  // That those used; none: nobody knows.
  std::optional<SampleCount> first_samples = SampleCount{};
  nn::LossSum first_epoch_loss = {};  // of those of the epoch so far
  uint64_t last_step = 0;             // leave when so many are done
  bool checkpoints = true;            // every spec.checkpoint.every_steps, and on a stop
  bool checkpoint_at_end = false;
  int64_t slice_bytes = int64_t{4} << 20;  // of a checkpoint that a rank writes: at least
  storage::Digest resumed_from;            // for messages; empty when fresh
  StateSource first_state = {};            // parallel.zero: at first_step; null: zeros
};

// What this rank keeps of the training state between two steps, in bytes.
struct StateBytes {
  uint64_t weights = 0;
  uint64_t gradients = 0;  // sums, and what they are made in
  uint64_t optimizer = 0;
  uint64_t arena = 0;     // of forward and backward: activations, and gradients in passing
  uint64_t packs = 0;     // copies of weights as kernels read them
  uint64_t visiting = 0;  // weights of others, at most, and what they travel in
};

struct TrainOutcome {
  uint64_t steps = 0;  // done in all
  // "train/loss" (mean over the rows since the last epoch began), "train/accuracy",
  // "validation/loss", "validation/accuracy"; mse and r2 in place of accuracy for mse, perplexity
  // beside it for next_token.
  Metrics metrics;
  std::optional<SampleCount> samples;  // that all steps used; none where nobody knows
  storage::Digest last_checkpoint;
  double seconds = 0;             // that the steps took since the job, or an attempt of it, began
  double samples_per_second = 0;  // in this call
  StateBytes bytes;
};

// kFailedPrecondition: "loss is nan at step 17; last good checkpoint: step 10 (<digest>)": the same
//   on all ranks, and running it again gives the same.
// kCancelled after a stop request, with a checkpoint of the last step.
// kDataLoss when this rank's parameters are not those of most ranks, or no majority agrees.
// kInternal when a part of a state in slices is lost: the job goes on from its last checkpoint.
// kAborted and the like when a peer is gone; kResourceExhausted when a checkpoint does not fit.
Result<TrainOutcome> RunTrainLoop(const TrainRun& run, TrainObserver& observer);

// The same loop as an object, for a gang whose group changes: Enter and Run again with each group.
// Between two groups it holds the state of the last committed step.
class TrainLoop {
 public:
  // Both outlive it.
  TrainLoop(const TrainRun& run, TrainObserver& observer);
  ~TrainLoop();
  // All ranks of the group call it; then all have the state of the one that was furthest. Without
  // `has_state` what this rank holds counts for nothing. Returns the bytes that went to ranks which
  // were behind.
  Result<uint64_t> Enter(collectives::Communicator& gang, bool has_state);
  // As RunTrainLoop. Besides, kAborted when ranks leave or join: take part in the next group; and
  // kCancelled when this rank has left. With parallel.zero a rank that is to leave takes part in
  // groups until it is told kCancelled: others hold what it held only then.
  Result<TrainOutcome> Run();
  // How the newest Run came to its end.
  const Parting& parting() const;
  StateBytes bytes() const;
  // Between two groups: a checkpoint of the last committed step by this rank alone, if the newest
  // one is older. For a rank that waits for a group which will not come.
  Status Salvage();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lepton::worker
