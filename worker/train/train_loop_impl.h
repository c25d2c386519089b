// What is inside a TrainLoop (train_loop.h), and where each part of it is written:
//   train_loop.cc       what a rank does between two groups' ends: the steps, and what follows each
//   loop_step.cc        one step: shards' gradients, their sum, the update
//   loop_round.cc       the same with local_sgd: many steps of each shard, and one sum
//   loop_recovery.cc    ranks meet in a new group: whose state rules, and how the others get it
//   loop_join.cc        joiners get the state beside the steps, and take their shards behind one
//   loop_equality.cc    ranks that hold other parameters than their peers
//   loop_drain.cc       ranks leave, or others join: the group ends behind a step
//   loop_after_step.cc  what follows a step: evaluation, checkpoint, report
//   loop_checkpoint.cc  checkpoints: who writes what, beside the steps, and what becomes of it
//   loop_slices.cc      which of the state a rank writes
// Threads: one caller.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"
#include "worker/data/batch_feeder.h"
#include "worker/data/batch_source.h"
#include "worker/train/divergence.h"
#include "worker/train/gradient_exchange.h"
#include "worker/train/local_rounds.h"
#include "worker/train/loop_state.h"
#include "worker/train/state_stream.h"
#include "worker/train/step_tail.h"
#include "worker/train/train_loop.h"
#include "worker/train/tree_fold.h"
#include "worker/train/zero_gradients.h"
#include "worker/train/zero_state.h"
#include "worker/train/zero_weights.h"

namespace lepton::worker {

class TrainLoop::Impl {
 public:
  Impl(const TrainRun& run, TrainObserver& observer);

  Result<uint64_t> Enter(collectives::Communicator& gang, bool has_state);
  Result<TrainOutcome> Run();
  Status Salvage();
  StateBytes bytes() const;
  const Parting& parting() const { return parting_; }

 private:
  collectives::Communicator& all_ranks() const { return tensor_ ? tensor_->gang() : *gang_; }
  bool leader() const { return all_ranks().rank() == 0; }
  Status Abort(Status cause);

  // loop_step.cc
  Status TakeStep();
  Result<nn::LossSum> PieceGradient(uint64_t step, int shard, int piece);
  Result<SplitLoss> LocalGradient();
  Result<SplitLoss> PassGradients();
  Result<SplitLoss> ComputeStep();
  Result<StepSums> ReduceGradient(const SplitLoss& local_loss);
  ZeroState::GradientOf GradientOfParts();
  Result<double> ApplyParts();
  Status GatherParts();
  void Advance(const StepSums& sums);
  Status CheckSamples() const;
  Status NotFinite(std::string_view what, double value);

  // loop_round.cc
  Result<SplitLoss> LocalRound();
  Status ShardRound(int shard);
  uint64_t CommitEnd() const;
  uint64_t CommitBegin() const;
  bool Passed(uint64_t every) const;

  // loop_recovery.cc
  Result<int> Settle(bool has_state);
  Result<uint64_t> SettleParts(bool has_state);
  Status VisitWeights(const ZeroState::Meeting& meeting);
  Status Share(int source, bool same, bool own);
  Status ShareArrays(int source, bool gets);
  std::vector<std::span<float>> SharedState();
  Status ShareLoopState(int source);

  // loop_join.cc
  bool JoinsBesideSteps(std::span<const int64_t> own, std::span<const int> furthest);
  int64_t JoinPiece() const;
  std::vector<std::span<float>> StateColumns();
  void DealShards();
  int whole_ranks() const;
  Status MayCutOver();
  Status FinishJoin();
  Status CutOver();

  // loop_equality.cc
  Status CheckEqual(std::span<const uint64_t> digests, std::span<const int> counted = {});
  Status PartUnequal(const Census& census, const std::string& tensor);
  Status CheckEqualAtEnd();

  // loop_drain.cc
  Status MayPart();
  Status HandOver();
  Result<bool> PartAsTheyMeet(const ZeroState::Meeting& meeting);
  void SetLeft(const std::vector<bool>& stays);
  Status Part();

  // loop_after_step.cc
  Status AfterStep();
  Status EvaluateNow();
  std::optional<SampleCount> SamplesUsed() const;
  void Report(double train_loss);
  void Tell(double train_loss, double seconds);

  // loop_checkpoint.cc
  enum class Write { kNow, kBesideSteps };
  Status CheckpointNow(Write how);
  Metrics MetricsOfStep() const;
  CheckpointPoint PendingPoint() const;
  Status BeginCheckpoint();
  // The manifest, or one of so many slices.
  struct CheckpointPart {
    static constexpr int64_t kManifest = -1;
    uint64_t step = 0;  // 0: nothing
    int64_t slice = kManifest;
    int64_t slices = 0;
    bool IsManifestOf(uint64_t of) const { return step == of && slice == kManifest; }
    // Ranks that met again may have cut the state of one step in several ways.
    bool IsSliceOf(uint64_t of, int64_t cut) const {
      return step == of && slices == cut && slice >= 0 && slice < cut;
    }
  };
  // What a rank has of a checkpoint, as ranks ask each other.
  struct CheckpointShare {
    CheckpointPart writes, kept;
    char digest[64] = {};  // of what it writes; empty: it could not be written
    void Set(const storage::Digest& written);
    storage::Digest Get() const;
  };
  Result<std::vector<CheckpointShare>> TellEachOther(const CheckpointShare& mine);
  Result<std::vector<CheckpointShare>> AwaitParts();
  Status TakeWritten();
  bool SliceIsWritten() const;
  Status GatherSlices();
  Status FinishCheckpoint();
  Status FindPending();
  std::string LastGood() const;

  // loop_slices.cc
  struct StateSlices {
    TrainObserver::Slices slices;  // of `kept`, or of the state itself
    std::vector<std::vector<float>> kept;
  };
  int SliceCount();
  Result<StateSlices> SlicesOf(int number, int count);
  TrainObserver::Slices ShareOfArrays(int number, int count);
  TrainObserver::Slices SlicesOfParts(const std::vector<ZeroState::StatePart>& parts);
  Result<StateSlices> UndividedShare(int number, int count);
  TrainObserver::Slices AllSlices();

  const TrainRun& run_;
  TrainObserver& observer_;
  const int shards_, pieces_;
  const BatchSource source_;
  // parallel.tensor: of the ranks with this rank's slices, and whose gradients are summed.
  collectives::Communicator* gang_ = nullptr;
  TensorGang* const tensor_;               // null: each rank has a model
  bool took_part_ = false;                 // in a group before
  bool whole_ = true;                      // weights, optimiser and loop state are of one place
  bool has_loop_state_ = false;            // zero_: a peer's
  int dealt_among_ = 0;                    // the first ranks, which compute
  std::vector<int> my_shards_;             // whole ones; not with zero_gradients_
  std::vector<MicroBatch> micro_batches_;  // of this rank, in each step
  std::optional<BatchFeeder> feeder_;
  std::optional<GradientExchange> exchange_;
  std::optional<LocalRounds> rounds_;            // local_sgd
  std::optional<StateStream> joining_;           // open while a joiner lacks some of the state
  std::optional<ZeroState> zero_;                // parallel.zero
  std::optional<ZeroWeights> zero_weights_;      // of stage 3
  std::optional<ZeroGradients> zero_gradients_;  // from stage 2 on, instead of exchange_
  StepSums reduced_;                             // zero_: of the step that it has the gradient of
  bool has_rows_ = true;                         // the last piece
  SampleCount used_;                             // by this rank, in the step
  TreeFold loss_fold_;
  std::vector<float> tail_;

  LoopState state_;
  StepSums wishes_;             // as of the last step
  bool leaves_ = false;         // this rank wished it then
  bool meets_to_part_ = false;  // the group is for those that leave alone
  Parting parting_;             // as the newest Run ended
  // What this rank writes of a checkpoint: on its way, or its digest once durable.
  CheckpointPart writes_;
  TrainObserver::CheckpointDone writing_;
  storage::Digest written_;
  CheckpointPart kept_;  // its slice that the newest manifest names
  storage::Digest kept_digest_;
  int64_t samples_ = 0, reported_samples_ = 0;
  MonotonicTime started_{}, reported_{}, stepped_{};
};

}  // namespace lepton::worker
