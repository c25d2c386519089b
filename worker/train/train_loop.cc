#include "worker/train/train_loop.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "collectives/tree_shape.h"
#include "runtime/base/progress.h"
#include "worker/data/batch_feeder.h"
#include "worker/train/divergence.h"
#include "worker/train/evaluation.h"
#include "worker/train/gradient_exchange.h"
#include "worker/train/loop_state.h"
#include "worker/train/parameter_digest.h"
#include "worker/train/step_tail.h"
#include "worker/train/tree_fold.h"
#include "worker/train/zero_gradients.h"

namespace lepton::worker {
namespace {

constexpr Duration kReportEvery = std::chrono::milliseconds(200);
// Short epochs share an evaluation, so that it never costs more than the training.
constexpr uint64_t kStepsBetweenEvaluations = 10;
constexpr int64_t kTrainSampleRows = 256;
// Language models are measured on the first so many tokens of a part while they train: a part may
// be billions of tokens. The test part is measured whole, once, at the end.
constexpr int64_t kMeasuredTokens = int64_t{1} << 17;
constexpr int64_t kTrainSampleTokens = int64_t{1} << 14;

void Accumulate(const nn::LossSum& loss, nn::LossSum& total) {
  total.sum += loss.sum;
  total.count += loss.count;
}
double Mean(const nn::LossSum& total) {
  return total.count > 0 ? total.sum / total.count : 0;
}

// This rank's.
std::vector<int> ShardsOf(const collectives::Communicator& gang, int shards) {
  const auto [begin, end] = collectives::LeavesOf(gang.rank(), gang.size(), shards);
  std::vector<int> mine(static_cast<size_t>(end - begin));
  std::iota(mine.begin(), mine.end(), begin);
  return mine;
}

}  // namespace

class TrainLoop::Impl {
 public:
  Impl(const TrainRun& run, TrainObserver& observer)
      : run_(run),
        observer_(observer),
        shards_(run.spec.shards()),
        pieces_(static_cast<int>(run.spec.accumulate)),
        source_(run.data.train, {.batch_size = run.spec.batch_size,
                                 .shards = shards_,
                                 .pieces = pieces_,
                                 .seed = run.spec.seed,
                                 .teacher_logits = run.teacher_logits,
                                 .outputs = run.program.signature().outputs}),
        loss_fold_(std::tuple_size_v<SplitLoss>) {
    const int stage = run.spec.parallel.zero;
    if (stage > 0) {
      const int stripes =
          stage == 1 ? 1
                     : StripesFor(TrainedElements(run.program.parameters()),
                                  run.spec.gradients.bucket_bytes, run.spec.resources.max_workers);
      zero_.emplace(run.program, stripes, run.first_step, run.first_state);
    }
    if (stage < 2) {
      exchange_.emplace(run.program, GradientExchange::OptionsOf(run.spec));
    } else {
      zero_gradients_.emplace(run.program, shards_, pieces_);
    }
    state_.step = state_.good_step = run.first_step;
    state_.last_checkpoint = run.resumed_from;
  }

  Result<uint64_t> Enter(collectives::Communicator& gang, bool has_state);
  Result<TrainOutcome> Run();
  Status Salvage();
  StateBytes bytes() const;

 private:
  bool leader() const { return gang_->rank() == 0; }
  Status Share(int source);
  Status ShareLoopState(int source);
  Result<int> Settle(bool has_state);
  Result<uint64_t> SettleParts(bool has_state);
  Result<nn::LossSum> PieceGradient(int shard, int piece);
  Result<SplitLoss> LocalGradient();
  Result<SplitLoss> ComputeStep();
  Result<StepSums> ReduceGradient(const SplitLoss& local_loss);
  Status CheckEqual(std::span<const uint64_t> digests, std::span<const int> counted = {});
  Status CheckEqualAtEnd();
  Status TakeStep();
  ZeroState::GradientOf GradientOfParts();
  Result<double> ApplyParts();
  void Advance(const StepSums& sums);
  Status GatherParts();
  Status AfterStep();
  Status MayPart();
  Status HandOver();
  Status EvaluateNow();
  Status CheckpointNow();
  Result<storage::Digest> CheckpointParts();
  std::string LastGood() const;
  Status NotFinite(std::string_view what, double value) const;
  void Report(double train_loss);

  const TrainRun& run_;
  TrainObserver& observer_;
  const int shards_, pieces_;
  const BatchSource source_;
  collectives::Communicator* gang_ = nullptr;
  bool took_part_ = false;       // in a group before
  bool whole_ = true;            // weights, optimiser and loop state are of one place
  bool has_loop_state_ = false;  // zero_: a peer's
  std::vector<int> my_shards_;
  std::optional<BatchFeeder> feeder_;
  std::optional<GradientExchange> exchange_;
  std::optional<ZeroState> zero_;                // parallel.zero
  std::optional<ZeroGradients> zero_gradients_;  // of stage 2, instead of exchange_
  StepSums reduced_;                             // zero_: of the step that it has the gradient of
  bool has_rows_ = true;                         // the last piece
  TreeFold loss_fold_;
  std::vector<float> tail_;

  LoopState state_;
  StepSums wishes_;      // as of the last step
  bool leaves_ = false;  // this rank wished it then
  int64_t samples_ = 0, reported_samples_ = 0;
  MonotonicTime started_{}, reported_{};
};

// Weights, optimiser and loop state of one rank, to all.
Status TrainLoop::Impl::Share(int source) {
  using collectives::DataType;
  whole_ = whole_ && gang_->rank() == source;  // until all of it is here
  for (std::span<float> floats : {run_.program.weights(), run_.program.optimizer_state()}) {
    if (floats.empty()) continue;
    LEPTON_RETURN_IF_ERROR(
        gang_->Broadcast(floats.data(), floats.size(), DataType::kFloat32, source));
  }
  LEPTON_RETURN_IF_ERROR(ShareLoopState(source));
  whole_ = true;
  return Status::Ok();
}

Status TrainLoop::Impl::ShareLoopState(int source) {
  using collectives::DataType;
  std::string packed = state_.Pack();
  int64_t size = static_cast<int64_t>(packed.size());
  LEPTON_RETURN_IF_ERROR(gang_->Broadcast(&size, 1, DataType::kInt64, source));
  packed.resize(static_cast<size_t>(size));
  LEPTON_RETURN_IF_ERROR(gang_->Broadcast(packed.data(), packed.size(), DataType::kUInt8, source));
  LEPTON_ASSIGN_OR_RETURN(state_, LoopState::Unpack(packed));
  return Status::Ok();
}

// One copy of the state rules, the furthest: also at the start, in case that hosts differ in how
// they round while drawing the initial weights. Returns how many ranks were behind.
Result<int> TrainLoop::Impl::Settle(bool has_state) {
  const int64_t mine[] = {has_state && whole_ ? state_.place() : -1, took_part_ ? 1 : 0,
                          static_cast<int64_t>(DigestOf(run_.program.weights()))};
  const size_t ranks = static_cast<size_t>(gang_->size());
  std::vector<int64_t> all(std::size(mine) * ranks);
  LEPTON_RETURN_IF_ERROR(
      gang_->AllGather(mine, all.data(), std::size(mine), collectives::DataType::kInt64)
          .WithContext("places"));
  std::vector<int64_t> places(ranks);
  std::vector<uint64_t> digests(ranks);
  bool fresh = true;
  for (size_t rank = 0; rank < ranks; ++rank) fresh = fresh && all[rank * std::size(mine) + 1] == 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const int64_t* const its = &all[rank * std::size(mine)];
    // What a rank drew for itself counts only where nobody has begun.
    places[rank] = fresh || its[1] != 0 ? its[0] : -1;
    digests[rank] = static_cast<uint64_t>(its[2]);
  }
  const int64_t newest = *std::max_element(places.begin(), places.end());
  if (newest < 0) return AbortGang(*gang_, Internal("no rank has the training state"));
  std::vector<int> furthest;
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (places[rank] == newest) furthest.push_back(static_cast<int>(rank));
  }
  const int behind = static_cast<int>(ranks - furthest.size());
  const bool alike = CountDigests(digests, furthest).agree();
  if (!fresh) LEPTON_RETURN_IF_ERROR(CheckEqual(digests, furthest));
  if (behind > 0 || !alike) {
    LEPTON_RETURN_IF_ERROR(Share(furthest[0]).WithContext("training state"));
  }
  return behind;
}

// The same of a state in slices. Returns the bytes that went to ranks which lacked them.
Result<uint64_t> TrainLoop::Impl::SettleParts(bool has_state) {
  const int64_t place = has_state || has_loop_state_ ? state_.place() : -1;
  LEPTON_ASSIGN_OR_RETURN(const ZeroState::Meeting meeting,
                          zero_->Meet(*gang_, {.place = place,
                                               .took_part = took_part_ || has_loop_state_,
                                               .digest = DigestOf(run_.program.weights()),
                                               .norm = state_.gradient_norm}));
  if (!meeting.fresh && !meeting.whole.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckEqual(meeting.digests, meeting.whole));
  }
  if (meeting.follow) {
    LOG(INFO) << "step " << meeting.step << " was committed: this rank applies it too";
    zero_->Update(state_.step, meeting.norm, GradientOfParts());
    state_.gradient_norm = meeting.norm;
    Advance(reduced_);
  }
  if (meeting.behind > 0) {
    LEPTON_RETURN_IF_ERROR(ShareLoopState(meeting.source).WithContext("training state"));
    // At the start what a rank has is nobody's but its own until all have met.
    has_loop_state_ = has_loop_state_ || !meeting.fresh;
  }
  LEPTON_ASSIGN_OR_RETURN(const uint64_t weights, zero_->ShareWeights(*gang_, meeting));
  LEPTON_ASSIGN_OR_RETURN(const uint64_t state, zero_->ShareState(*gang_, meeting));
  const StateBytes mine = bytes();
  LOG(INFO) << fmt::format(
      "parallel.zero {}: rank {} of {}, buddy of rank {}, keeps {} bytes of weights, {} of "
      "gradients "
      "and {} of the optimizer's state, which has {}",
      run_.spec.parallel.zero, gang_->rank(), gang_->size(),
      MirroredBy(gang_->rank(), gang_->size()), mine.weights, mine.gradients, mine.optimizer,
      zero_->state_elements() * static_cast<int64_t>(sizeof(float)));
  return weights + state;
}

// The step in flight when a group broke is forgotten.
Result<uint64_t> TrainLoop::Impl::Enter(collectives::Communicator& gang, bool has_state) {
  if (exchange_) exchange_->Abandon();
  if (zero_gradients_) zero_gradients_->Abandon();
  gang_ = &gang;
  uint64_t bytes = 0;
  if (zero_) {
    LEPTON_ASSIGN_OR_RETURN(bytes, SettleParts(has_state));
  } else if (gang.size() > 1) {
    LEPTON_ASSIGN_OR_RETURN(const int behind, Settle(has_state));
    bytes = static_cast<uint64_t>(behind) * sizeof(float) *
            (run_.program.weights().size() + run_.program.optimizer_state().size());
  } else if (!has_state || !whole_) {
    return Internal("no rank has the training state");
  }
  took_part_ = true;
  wishes_ = {};
  my_shards_ = zero_gradients_ ? ZeroGradients::ShardsOf(gang.rank(), gang.size(), shards_)
                               : ShardsOf(gang, shards_);
  if (exchange_) exchange_->EnterGroup(static_cast<int>(my_shards_.size()), shards_);
  if (leader() && run_.spec.gradients.compression != "none") {
    LOG(INFO) << fmt::format("gradients as {}: {} bytes a step, whole they are {}; begins anew",
                             run_.spec.gradients.compression, exchange_->payload_bytes(),
                             run_.program.gradients().size_bytes());
  }
  feeder_.reset();
  feeder_.emplace(source_, run_.program.signature(),
                  BatchFeeder::Plan{state_.step, run_.last_step, my_shards_});
  return bytes;
}

// Each piece has its own random stream, numbered on over all shards.
Result<nn::LossSum> TrainLoop::Impl::PieceGradient(int shard, int piece) {
  LEPTON_ASSIGN_OR_RETURN(const BatchBuffer* const batch, feeder_->Next());
  has_rows_ = batch->rows() > 0;
  if (!has_rows_) {
    const std::span<float> gradients = run_.program.gradients();
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    return nn::LossSum{};
  }
  return run_.program.ForwardBackward(batch->batch(), batch->targets(), state_.step,
                                      static_cast<uint32_t>(shard * pieces_ + piece));
}

// This rank's micro-batches; their gradients begin to travel during the last of them. Returns the
// loss over its shards.
Result<SplitLoss> TrainLoop::Impl::LocalGradient() {
  if (exchange_) exchange_->Begin(*gang_, static_cast<int>(my_shards_.size()), pieces_);
  if (zero_gradients_) zero_gradients_->Begin(*gang_, zero_->layout());
  loss_fold_.Reset();
  for (const int shard : my_shards_) {
    nn::LossSum loss;
    for (int piece = 0; piece < pieces_; ++piece) {
      LEPTON_ASSIGN_OR_RETURN(const nn::LossSum more, PieceGradient(shard, piece));
      if (exchange_) exchange_->After();
      if (zero_gradients_) zero_gradients_->After(has_rows_);
      Accumulate(more, loss);
    }
    if (zero_gradients_) zero_gradients_->EndShard(loss);
    loss_fold_.Add(Split(loss));
  }
  SplitLoss sum;
  loss_fold_.Finish(sum);
  return sum;
}

// From here to the reduction a rank waits for nobody.
Result<SplitLoss> TrainLoop::Impl::ComputeStep() {
  const progress::Computing computing("step", state_.step + 1);
  Result<SplitLoss> local_loss = LocalGradient();
  observer_.Computed(state_.step + 1, run_.program);
  return local_loss;
}

Result<StepSums> TrainLoop::Impl::ReduceGradient(const SplitLoss& local_loss) {
  const Wishes wishes{observer_.StopRequested(), observer_.LeaveRequested(),
                      observer_.RegroupRequested()};
  leaves_ = wishes.leave;
  const uint64_t digest = gang_->size() > 1 ? DigestOf(run_.program.weights()) : 0;
  if (zero_gradients_) return zero_gradients_->Reduce(wishes, digest);
  tail_.resize(TailSize(gang_->size()));
  WriteTail(tail_, local_loss, wishes, gang_->rank(), digest);
  LEPTON_RETURN_IF_ERROR(exchange_->Reduce(tail_));
  return ReadTail(tail_);
}

// Collective when the digests differ, which all ranks see alike. kDataLoss on ranks that are not to
// be trusted, which end; kAborted on the others, which go on without them.
Status TrainLoop::Impl::CheckEqual(std::span<const uint64_t> digests,
                                   std::span<const int> counted) {
  const Census census = CountDigests(digests, counted);
  if (census.agree()) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const std::string tensor, FindTensor(census, run_.program, *gang_));
  Divergence found{.step = state_.step + 1,
                   .tensor = tensor,
                   .agreeing = census.agreeing,
                   .ranks = gang_->size()};
  if (census.IsOdd(gang_->rank())) {
    observer_.Diverged(found);
    return DataLoss(found.agreeing > 0
                        ? fmt::format("its parameters are not those of {} of the {} ranks at step "
                                      "{}: {} differs",
                                      found.agreeing, found.ranks, found.step, tensor)
                        : fmt::format("the {} ranks do not hold the same parameters at step {}, "
                                      "and no majority does: {} differs; {}",
                                      found.ranks, found.step, tensor, LastGood()));
  }
  if (census.agreeing == 0) return DataLoss("the ranks that went furthest do not agree");
  // What the odd one wrote behind the last step may be wrong too: done again by those that go on.
  if (census.IsOdd(0)) state_.step_closed = false;
  return Aborted(fmt::format("rank {} of {} holds other parameters at step {}: {} differs",
                             census.odd[0], found.ranks, found.step, tensor));
}

// What flipped since the last reduction must not become the model.
Status TrainLoop::Impl::CheckEqualAtEnd() {
  if (gang_->size() == 1) return Status::Ok();
  const auto mine = static_cast<int64_t>(DigestOf(run_.program.weights()));
  std::vector<uint64_t> all(static_cast<size_t>(gang_->size()));
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(&mine, all.data(), 1, collectives::DataType::kInt64)
                             .WithContext("digests of the parameters"));
  return CheckEqual(all);
}

std::string TrainLoop::Impl::LastGood() const {
  return state_.last_checkpoint.empty() ? "no checkpoint yet"
                                        : fmt::format("last good checkpoint: step {} ({})",
                                                      state_.good_step, state_.last_checkpoint);
}

Status TrainLoop::Impl::NotFinite(std::string_view what, double value) const {
  return FailedPrecondition(
      fmt::format("{} is {} at step {}; {}; a lower optimizer.lr or clip_norm may help", what,
                  std::isnan(value) ? "nan" : "infinite", state_.step + 1, LastGood()));
}

Status TrainLoop::Impl::TakeStep() {
  if (state_.step % source_.steps_per_epoch() == 0) state_.epoch_loss = {};
  const Result<SplitLoss> local_loss = ComputeStep();
  if (!local_loss.ok()) {
    return AbortGang(*gang_,
                     local_loss.status().WithContext(fmt::format("step {}", state_.step + 1)));
  }
  LEPTON_ASSIGN_OR_RETURN(const StepSums sums, ReduceGradient(*local_loss));
  LEPTON_RETURN_IF_ERROR(CheckEqual(sums.digests));
  if (!std::isfinite(sums.loss.sum)) return NotFinite("loss", sums.loss.sum);
  if (zero_) {
    reduced_ = sums;
    LEPTON_ASSIGN_OR_RETURN(state_.gradient_norm, ApplyParts());
  } else {
    const progress::Computing computing("update", state_.step + 1);
    state_.gradient_norm =
        run_.program.ApplyGradients(state_.step, 1.0 / std::max(1.0, sums.loss.count));
  }
  if (!std::isfinite(state_.gradient_norm)) return NotFinite("gradient norm", state_.gradient_norm);
  Advance(sums);
  if (zero_) LEPTON_RETURN_IF_ERROR(GatherParts());
  observer_.Committed(state_.step);
  return Status::Ok();
}

// Behind the update.
void TrainLoop::Impl::Advance(const StepSums& sums) {
  samples_ += source_.BatchRows(state_.step);
  Accumulate(sums.loss, state_.epoch_loss);
  Accumulate(sums.loss, state_.report_loss);
  ++state_.step;
  state_.step_closed = false;
  // If all leave, nobody is left who could go on.
  state_.stopping = sums.stop > 0 || sums.leave == static_cast<int>(sums.digests.size());
  wishes_ = sums;
}

ZeroState::GradientOf TrainLoop::Impl::GradientOfParts() {
  return [this](const Elements& part) -> std::span<const float> {
    if (zero_gradients_) return zero_gradients_->Of(part);
    return run_.program.gradients().subspan(static_cast<size_t>(part.begin),
                                            static_cast<size_t>(part.size()));
  };
}

// The update of this rank's slices; returns the gradient's norm, and where that is not finite does
// nothing.
Result<double> TrainLoop::Impl::ApplyParts() {
  zero_->Reduced(1.0 / std::max(1.0, reduced_.loss.count));
  LEPTON_ASSIGN_OR_RETURN(const double norm, zero_->AgreeOnNorm(*gang_, GradientOfParts()));
  const progress::Computing computing("update", state_.step + 1);
  if (std::isfinite(norm)) zero_->Update(state_.step, norm, GradientOfParts());
  return norm;
}

// Two hold the same slice, and nobody can say which of them is right.
Status TrainLoop::Impl::GatherParts() {
  LEPTON_ASSIGN_OR_RETURN(const int slice, zero_->GatherWeights(*gang_));
  if (slice < 0) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const std::string tensor, zero_->FindTensor(slice, *gang_));
  observer_.Diverged({.step = state_.step, .tensor = tensor, .ranks = gang_->size()});
  return DataLoss(fmt::format(
      "ranks {} and {}, which mirror each other, do not hold the same parameters after step {}: {} "
      "differs; {}",
      slice, BuddyOf(slice, gang_->size()), state_.step, tensor, LastGood()));
}

Status TrainLoop::Impl::EvaluateNow() {
  if (state_.evaluated_step == state_.step) return Status::Ok();
  const Examples& validation = *run_.data.validation;
  int64_t held_out_rows = validation.rows();
  int64_t sample = std::max(kTrainSampleRows, held_out_rows);
  if (run_.program.signature().per_token) {
    const Examples& train = *run_.data.train_plain;
    held_out_rows = std::max<int64_t>(1, kMeasuredTokens / validation.predictions());
    sample = std::max<int64_t>(1, kTrainSampleTokens / train.predictions());
  }
  LEPTON_ASSIGN_OR_RETURN(const Evaluation train,
                          Evaluate(run_.program, *run_.data.train_plain, sample, *gang_));
  LEPTON_ASSIGN_OR_RETURN(const Evaluation held_out,
                          Evaluate(run_.program, validation, held_out_rows, *gang_));
  train.AddTo("train", state_.metrics);
  held_out.AddTo("validation", state_.metrics);
  // The running loss is finer than the sample's, and includes the soft targets of a distillation.
  if (state_.epoch_loss.count > 0) state_.metrics["train/loss"] = Mean(state_.epoch_loss);
  state_.evaluated_step = state_.step;
  return Status::Ok();
}

// Rank 0 writes; all ranks learn the digest, or that it failed.
Status TrainLoop::Impl::CheckpointNow() {
  LEPTON_RETURN_IF_ERROR(EvaluateNow());
  Status written;
  char digest[64] = {};
  if (leader() || zero_) {
    const Result<storage::Digest> result =
        zero_ ? CheckpointParts() : observer_.Checkpoint(state_.step, state_.metrics);
    if (result.ok()) std::memcpy(digest, result->data(), std::min<size_t>(64, result->size()));
    written = result.status().WithContext(fmt::format("checkpoint of step {}", state_.step));
  }
  if (gang_->size() > 1) {
    LEPTON_RETURN_IF_ERROR(
        gang_->Broadcast(digest, sizeof(digest), collectives::DataType::kUInt8, 0));
  }
  LEPTON_RETURN_IF_ERROR(written);
  if (digest[0] == 0) return Aborted("rank 0 could not write the checkpoint");
  state_.last_checkpoint.assign(digest, sizeof(digest));
  state_.good_step = state_.step;
  return Status::Ok();
}

// Empty on ranks that only give what they hold.
Result<storage::Digest> TrainLoop::Impl::CheckpointParts() {
  if (!leader()) {
    LEPTON_RETURN_IF_ERROR(zero_->Collect(*gang_, nullptr));
    return storage::Digest();
  }
  bool collected = false;
  Result<storage::Digest> written =
      observer_.CheckpointParts(state_.step, state_.metrics, [&](const ZeroState::TakeState& take) {
        collected = true;
        return zero_->Collect(*gang_, take);
      });
  const auto ignore = [](const std::vector<ZeroState::StatePart>&) { return Status::Ok(); };
  if (!collected) LEPTON_RETURN_IF_ERROR(zero_->Collect(*gang_, ignore));
  return written;
}

void TrainLoop::Impl::Report(double train_loss) {
  if (!leader()) return;
  const MonotonicTime now = RealClock().Now();
  const double seconds = std::chrono::duration<double>(now - reported_).count();
  TrainProgress progress;
  progress.step = state_.step;
  progress.epoch =
      static_cast<double>(state_.step) / static_cast<double>(source_.steps_per_epoch());
  if (seconds > 0) {
    progress.samples_per_second = static_cast<double>(samples_ - reported_samples_) / seconds;
  }
  if (state_.evaluated_step == state_.step) progress.metrics = state_.metrics;
  progress.metrics["train/loss"] = train_loss;
  progress.metrics["learning_rate"] =
      run_.program.LearningRate(state_.step > 0 ? state_.step - 1 : 0);
  progress.metrics["grad_norm"] = state_.gradient_norm;
  observer_.Progress(progress);
  reported_ = now;
  reported_samples_ = samples_;
  state_.report_loss = {};
}

Status TrainLoop::Impl::AfterStep() {
  const bool stop = state_.stopping;
  const uint64_t every =
      static_cast<uint64_t>(std::max<int64_t>(0, run_.spec.checkpoint.every_steps));
  const bool epoch_end = state_.step % source_.steps_per_epoch() == 0;
  const bool last = state_.step == run_.last_step;
  const bool stale = state_.evaluated_step > state_.step ||
                     state_.step - state_.evaluated_step >= kStepsBetweenEvaluations;
  if (last || (epoch_end && stale && !stop)) LEPTON_RETURN_IF_ERROR(EvaluateNow());
  const bool due = every > 0 && state_.step % every == 0;
  if (run_.checkpoints && (stop || (last && run_.checkpoint_at_end) || (due && !last))) {
    LEPTON_RETURN_IF_ERROR(CheckpointNow());
  }
  const bool evaluated = state_.evaluated_step == state_.step;
  if (evaluated || RealClock().Now() - reported_ >= kReportEvery) {
    Report(Mean(epoch_end || last ? state_.epoch_loss : state_.report_loss));
  }
  if (stop && !last) return Cancelled(fmt::format("stopped after step {}", state_.step));
  return Status::Ok();
}

// Behind a step, where all ranks know of each other's wishes. kAborted: the group is over.
Status TrainLoop::Impl::MayPart() {
  if (state_.step == run_.last_step) return Status::Ok();
  if (wishes_.leave > 0) {
    if (zero_) LEPTON_RETURN_IF_ERROR(HandOver());
    if (zero_ ? leaves_ : observer_.LeaveRequested()) {
      return Cancelled(fmt::format("left the gang after step {}", state_.step));
    }
    return Aborted(fmt::format("{} of {} ranks left after step {}", wishes_.leave, gang_->size(),
                               state_.step));
  }
  if (wishes_.regroup == 0) return Status::Ok();
  return Aborted(fmt::format("the group ended after step {}, for a rank joins", state_.step));
}

// Of those that leave at once, both may hold the same slice.
Status TrainLoop::Impl::HandOver() {
  const int64_t mine = leaves_ ? 0 : 1;
  std::vector<int64_t> all(static_cast<size_t>(gang_->size()));
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(&mine, all.data(), 1, collectives::DataType::kInt64)
                             .WithContext("who leaves"));
  return zero_->HandOver(*gang_, std::vector<bool>(all.begin(), all.end()));
}

Result<TrainOutcome> TrainLoop::Impl::Run() {
  reported_ = RealClock().Now();
  if (started_ == MonotonicTime{}) started_ = reported_;
  while (true) {
    if (!state_.step_closed) {
      LEPTON_RETURN_IF_ERROR(AfterStep());
      state_.step_closed = true;
    }
    LEPTON_RETURN_IF_ERROR(MayPart());
    if (state_.step >= run_.last_step) break;
    LEPTON_RETURN_IF_ERROR(TakeStep());
  }
  LEPTON_RETURN_IF_ERROR(EvaluateNow());  // a run that was resumed at its end has no step to take
  LEPTON_RETURN_IF_ERROR(CheckEqualAtEnd());
  TrainOutcome outcome;
  outcome.steps = state_.step;
  outcome.metrics = state_.metrics;
  outcome.bytes = bytes();
  outcome.last_checkpoint = state_.last_checkpoint;
  outcome.seconds = std::chrono::duration<double>(RealClock().Now() - started_).count();
  if (outcome.seconds > 0 && samples_ > 0) {
    outcome.samples_per_second = static_cast<double>(samples_) / outcome.seconds;
  }
  return outcome;
}

Status TrainLoop::Impl::Salvage() {
  if (!run_.checkpoints || !whole_ || state_.step <= state_.good_step) return Status::Ok();
  if (zero_ && !zero_->HoldsAll()) {
    LOG(WARNING) << "step " << state_.step << ": this rank's slices alone make no checkpoint";
    return Status::Ok();
  }
  const auto written = zero_ ? observer_.CheckpointParts(state_.step, state_.metrics,
                                                         [&](const ZeroState::TakeState& take) {
                                                           return zero_->CollectAlone(take);
                                                         })
                             : observer_.Checkpoint(state_.step, state_.metrics);
  return written.status().WithContext(fmt::format("checkpoint of step {}", state_.step));
}

StateBytes TrainLoop::Impl::bytes() const {
  nn::TrainingProgram& program = run_.program;
  const uint64_t held = zero_ ? static_cast<uint64_t>(zero_->held_bytes()) : 0;
  return {.weights = program.weights().size_bytes(),
          .gradients = program.gradients().size_bytes() +
                       (exchange_ ? exchange_->bytes() : zero_gradients_->bytes()),
          .optimizer = program.optimizer_state().size_bytes() + held,
          .arena = program.arena_bytes()};
}

TrainLoop::TrainLoop(const TrainRun& run, TrainObserver& observer)
    : impl_(std::make_unique<Impl>(run, observer)) {}
TrainLoop::~TrainLoop() = default;

Result<uint64_t> TrainLoop::Enter(collectives::Communicator& gang, bool has_state) {
  return impl_->Enter(gang, has_state);
}

Result<TrainOutcome> TrainLoop::Run() {
  return impl_->Run();
}

Status TrainLoop::Salvage() {
  return impl_->Salvage();
}

StateBytes TrainLoop::bytes() const {
  return impl_->bytes();
}

namespace {

Result<uint64_t> LabelNumber(const std::string& key, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return InvalidArgument(fmt::format("labels.{}: \"{}\" is not a whole number", key, text));
}

}  // namespace

int64_t StepsPerEpoch(const spec::JobSpec& spec, int64_t train_rows) {
  const int64_t batch = std::min(spec.batch_size, train_rows);
  return (train_rows + batch - 1) / batch;
}

uint64_t TotalSteps(const spec::JobSpec& spec, int64_t train_rows) {
  if (spec.steps > 0) return static_cast<uint64_t>(spec.steps);
  return static_cast<uint64_t>(spec.epochs * StepsPerEpoch(spec, train_rows));
}

Result<uint64_t> StopStep(const spec::JobSpec& spec, int64_t train_rows) {
  uint64_t stop = TotalSteps(spec, train_rows);
  if (const auto found = spec.labels.find("lepton.stop_at_step"); found != spec.labels.end()) {
    LEPTON_ASSIGN_OR_RETURN(const uint64_t step, LabelNumber(found->first, found->second));
    stop = std::min(stop, step);
  }
  if (const auto found = spec.labels.find("lepton.stop_at_epoch"); found != spec.labels.end()) {
    LEPTON_ASSIGN_OR_RETURN(const uint64_t epoch, LabelNumber(found->first, found->second));
    stop = std::min(stop, epoch * static_cast<uint64_t>(StepsPerEpoch(spec, train_rows)));
  }
  return stop;
}

Result<TrainOutcome> RunTrainLoop(const TrainRun& run, TrainObserver& observer) {
  TrainLoop loop(run, observer);
  LEPTON_RETURN_IF_ERROR(loop.Enter(run.gang, /*has_state=*/true).status());
  return loop.Run();
}

}  // namespace lepton::worker
