#include "worker/train/train_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <vector>

#include "worker/data/batch_feeder.h"
#include "worker/train/evaluation.h"
#include "worker/train/tree_fold.h"

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

// A mean over predictions, for the loss.
struct Mean {
  nn::LossSum total;
  void Add(const nn::LossSum& loss) {
    total.sum += loss.sum;
    total.count += loss.count;
  }
  double value() const { return total.count > 0 ? total.sum / total.count : 0; }
};

// The reduced buffer's tail behind the gradient: the loss and the number of predictions with a
// target, each a double in two floats, and a stop flag that any rank sets and that so reaches all
// of them at the same step.
enum Tail { kLossHigh, kLossLow, kCountHigh, kCountLow, kStop, kTailSize };

std::array<float, 2> SplitDouble(double value) {
  const float high = static_cast<float>(value);
  return {high, std::isfinite(high) ? static_cast<float>(value - double{high}) : 0.0f};
}

std::array<float, kStop> Split(const nn::LossSum& loss) {
  const auto [sum, sum_low] = SplitDouble(loss.sum);
  const auto [count, count_low] = SplitDouble(loss.count);
  return {sum, sum_low, count, count_low};
}

nn::LossSum Join(const float* tail) {
  return {double{tail[kLossHigh]} + double{tail[kLossLow]},
          double{tail[kCountHigh]} + double{tail[kCountLow]}};
}

// This rank's.
std::vector<int> ShardsOf(const collectives::Communicator& gang, int shards) {
  std::vector<int> mine;
  for (int shard = 0; shard < shards; ++shard) {
    if (RankOfShard(shard, shards, gang.size()) == gang.rank()) mine.push_back(shard);
  }
  return mine;
}

class TrainLoop {
 public:
  TrainLoop(const TrainRun& run, TrainObserver& observer)
      : run_(run),
        observer_(observer),
        shards_(LogicalShards(run.spec)),
        pieces_(static_cast<int>(run.spec.accumulate)),
        source_(run.data.train, {.batch_size = run.spec.batch_size,
                                 .shards = shards_,
                                 .pieces = pieces_,
                                 .seed = run.spec.seed,
                                 .teacher_logits = run.teacher_logits,
                                 .outputs = run.program.signature().outputs}),
        my_shards_(ShardsOf(run.gang, shards_)),
        feeder_(source_, run.program.signature(), {run.first_step, run.last_step, my_shards_}),
        fold_(run.program.gradients().size()),
        loss_fold_(std::tuple_size_v<SplitLoss>),
        buffer_(run.program.gradients().size() + kTailSize),
        step_(run.first_step),
        good_step_(run.first_step) {
    outcome_.last_checkpoint = run.resumed_from;
  }

  Result<TrainOutcome> Run();

 private:
  struct StepSums {
    nn::LossSum loss;
    bool stop = false;
  };
  bool leader() const { return run_.gang.rank() == 0; }
  Status AgreeOnStart();
  using SplitLoss = std::array<float, kStop>;  // as the tail
  Result<nn::LossSum> PieceGradient(int shard, int piece);
  Result<nn::LossSum> ShardGradient(int shard);
  Result<SplitLoss> LocalGradient();
  Result<StepSums> ReduceGradient(const SplitLoss& local_loss);
  Status TakeStep(bool& stop);
  Status AfterStep(bool stop);
  Status EvaluateNow();
  Status CheckpointNow();
  Status NotFinite(std::string_view what, double value) const;
  void Report(double train_loss);

  const TrainRun& run_;
  TrainObserver& observer_;
  const int shards_, pieces_;
  const BatchSource source_;
  const std::vector<int> my_shards_;
  BatchFeeder feeder_;
  TreeFold fold_, loss_fold_;
  std::vector<float> pieces_sum_;
  std::vector<float> buffer_;

  uint64_t step_;       // done
  uint64_t good_step_;  // of the last checkpoint
  uint64_t evaluated_step_ = std::numeric_limits<uint64_t>::max();
  Mean epoch_loss_, report_loss_;
  double gradient_norm_ = 0;
  int64_t samples_ = 0, reported_samples_ = 0;
  MonotonicTime started_, reported_;
  TrainOutcome outcome_;
};

// A resumed gang must start at one step; and one copy of the state rules, in case that hosts differ
// in how they round while drawing the initial weights.
Status TrainLoop::AgreeOnStart() {
  if (run_.gang.size() == 1) return Status::Ok();
  using collectives::DataType;
  uint64_t first = step_;
  LEPTON_RETURN_IF_ERROR(run_.gang.Broadcast(&first, 1, DataType::kInt64, 0));
  if (first != step_) {
    return AbortGang(run_.gang, Internal(fmt::format("rank {} starts at step {}, rank 0 at {}",
                                                     run_.gang.rank(), step_, first)));
  }
  for (std::span<float> state : {run_.program.weights(), run_.program.optimizer_state()}) {
    if (state.empty()) continue;
    LEPTON_RETURN_IF_ERROR(run_.gang.Broadcast(state.data(), state.size(), DataType::kFloat32, 0));
  }
  return Status::Ok();
}

// Each piece has its own random stream, numbered on over all shards.
Result<nn::LossSum> TrainLoop::PieceGradient(int shard, int piece) {
  LEPTON_ASSIGN_OR_RETURN(const BatchBuffer* const batch, feeder_.Next());
  if (batch->rows() == 0) {
    const std::span<float> gradients = run_.program.gradients();
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    return nn::LossSum{};
  }
  return run_.program.ForwardBackward(batch->batch(), batch->targets(), step_,
                                      static_cast<uint32_t>(shard * pieces_ + piece));
}

// The pieces' gradients added in order, in program.gradients().
Result<nn::LossSum> TrainLoop::ShardGradient(int shard) {
  LEPTON_ASSIGN_OR_RETURN(nn::LossSum loss, PieceGradient(shard, 0));
  if (pieces_ == 1) return loss;
  const std::span<float> gradients = run_.program.gradients();
  pieces_sum_.assign(gradients.begin(), gradients.end());
  for (int piece = 1; piece < pieces_; ++piece) {
    LEPTON_ASSIGN_OR_RETURN(const nn::LossSum more, PieceGradient(shard, piece));
    loss.sum += more.sum;
    loss.count += more.count;
    for (size_t i = 0; i < gradients.size(); ++i) pieces_sum_[i] += gradients[i];
  }
  std::copy(pieces_sum_.begin(), pieces_sum_.end(), gradients.begin());
  return loss;
}

// Leaves the sum over this rank's shards in program.gradients(); returns their loss.
Result<TrainLoop::SplitLoss> TrainLoop::LocalGradient() {
  const bool sole = shards_ == 1 && run_.gang.rank() == 0;  // nothing to add up
  const std::span<float> gradients = run_.program.gradients();
  fold_.Reset();
  loss_fold_.Reset();
  for (const int shard : my_shards_) {
    LEPTON_ASSIGN_OR_RETURN(const nn::LossSum loss, ShardGradient(shard));
    loss_fold_.Add(Split(loss));
    if (!sole) fold_.Add(gradients);
  }
  if (!sole) fold_.Finish(gradients);
  SplitLoss sum;
  loss_fold_.Finish(sum);
  return sum;
}

Result<TrainLoop::StepSums> TrainLoop::ReduceGradient(const SplitLoss& local_loss) {
  const bool stop = observer_.StopRequested();
  if (run_.gang.size() == 1) return StepSums{Join(local_loss.data()), stop};
  const std::span<float> gradients = run_.program.gradients();
  std::copy(gradients.begin(), gradients.end(), buffer_.begin());
  float* tail = buffer_.data() + gradients.size();
  std::copy(local_loss.begin(), local_loss.end(), tail);
  tail[kStop] = stop ? 1.0f : 0.0f;
  LEPTON_RETURN_IF_ERROR(run_.gang.AllReduce(buffer_.data(), buffer_.data(), buffer_.size(),
                                             collectives::DataType::kFloat32,
                                             collectives::ReduceOp::kSum));
  std::copy_n(buffer_.begin(), gradients.size(), gradients.begin());
  return StepSums{Join(tail), tail[kStop] > 0};
}

Status TrainLoop::NotFinite(std::string_view what, double value) const {
  const std::string good =
      outcome_.last_checkpoint.empty()
          ? "no checkpoint yet"
          : fmt::format("last good checkpoint: step {} ({})", good_step_, outcome_.last_checkpoint);
  return FailedPrecondition(
      fmt::format("{} is {} at step {}; {}; a lower optimizer.lr or clip_norm may help", what,
                  std::isnan(value) ? "nan" : "infinite", step_ + 1, good));
}

Status TrainLoop::TakeStep(bool& stop) {
  const int64_t rows = source_.BatchRows(step_);
  if (step_ % source_.steps_per_epoch() == 0) epoch_loss_ = {};
  const Result<SplitLoss> local_loss = LocalGradient();
  if (!local_loss.ok()) {
    return AbortGang(run_.gang, local_loss.status().WithContext(fmt::format("step {}", step_ + 1)));
  }
  LEPTON_ASSIGN_OR_RETURN(const StepSums sums, ReduceGradient(*local_loss));
  if (!std::isfinite(sums.loss.sum)) return NotFinite("loss", sums.loss.sum);
  gradient_norm_ = run_.program.ApplyGradients(step_, 1.0 / std::max(1.0, sums.loss.count));
  if (!std::isfinite(gradient_norm_)) return NotFinite("gradient norm", gradient_norm_);
  epoch_loss_.Add(sums.loss);
  report_loss_.Add(sums.loss);
  samples_ += rows;
  ++step_;
  stop = sums.stop;
  return Status::Ok();
}

Status TrainLoop::EvaluateNow() {
  if (evaluated_step_ == step_) return Status::Ok();
  evaluated_step_ = step_;
  const Examples& validation = *run_.data.validation;
  int64_t held_out_rows = validation.rows();
  int64_t sample = std::max(kTrainSampleRows, held_out_rows);
  if (run_.program.signature().per_token) {
    const Examples& train = *run_.data.train_plain;
    held_out_rows = std::max<int64_t>(1, kMeasuredTokens / validation.predictions());
    sample = std::max<int64_t>(1, kTrainSampleTokens / train.predictions());
  }
  LEPTON_ASSIGN_OR_RETURN(const Evaluation train,
                          Evaluate(run_.program, *run_.data.train_plain, sample, run_.gang));
  LEPTON_ASSIGN_OR_RETURN(const Evaluation held_out,
                          Evaluate(run_.program, validation, held_out_rows, run_.gang));
  train.AddTo("train", outcome_.metrics);
  held_out.AddTo("validation", outcome_.metrics);
  // The running loss is finer than the sample's, and includes the soft targets of a distillation.
  if (epoch_loss_.total.count > 0) outcome_.metrics["train/loss"] = epoch_loss_.value();
  return Status::Ok();
}

// Rank 0 writes; all ranks learn the digest, or that it failed.
Status TrainLoop::CheckpointNow() {
  LEPTON_RETURN_IF_ERROR(EvaluateNow());
  Status written;
  char digest[64] = {};
  if (leader()) {
    const Result<storage::Digest> result = observer_.Checkpoint(step_, outcome_.metrics);
    if (result.ok()) std::memcpy(digest, result->data(), std::min<size_t>(64, result->size()));
    written = result.status().WithContext(fmt::format("checkpoint of step {}", step_));
  }
  if (run_.gang.size() > 1) {
    LEPTON_RETURN_IF_ERROR(
        run_.gang.Broadcast(digest, sizeof(digest), collectives::DataType::kUInt8, 0));
  }
  LEPTON_RETURN_IF_ERROR(written);
  if (digest[0] == 0) return Aborted("rank 0 could not write the checkpoint");
  outcome_.last_checkpoint.assign(digest, sizeof(digest));
  good_step_ = step_;
  return Status::Ok();
}

void TrainLoop::Report(double train_loss) {
  if (!leader()) return;
  const MonotonicTime now = RealClock().Now();
  const double seconds = std::chrono::duration<double>(now - reported_).count();
  TrainProgress progress;
  progress.step = step_;
  progress.epoch = static_cast<double>(step_) / static_cast<double>(source_.steps_per_epoch());
  if (seconds > 0) {
    progress.samples_per_second = static_cast<double>(samples_ - reported_samples_) / seconds;
  }
  if (evaluated_step_ == step_) progress.metrics = outcome_.metrics;
  progress.metrics["train/loss"] = train_loss;
  progress.metrics["learning_rate"] = run_.program.LearningRate(step_ > 0 ? step_ - 1 : 0);
  progress.metrics["grad_norm"] = gradient_norm_;
  observer_.Progress(progress);
  reported_ = now;
  reported_samples_ = samples_;
  report_loss_ = {};
}

Status TrainLoop::AfterStep(bool stop) {
  const uint64_t every =
      static_cast<uint64_t>(std::max<int64_t>(0, run_.spec.checkpoint.every_steps));
  const bool epoch_end = step_ % source_.steps_per_epoch() == 0;
  const bool last = step_ == run_.last_step;
  const bool stale = evaluated_step_ > step_ || step_ - evaluated_step_ >= kStepsBetweenEvaluations;
  if (last || (epoch_end && stale && !stop)) LEPTON_RETURN_IF_ERROR(EvaluateNow());
  const bool due = every > 0 && step_ % every == 0;
  if (run_.checkpoints && (stop || (last && run_.checkpoint_at_end) || (due && !last))) {
    LEPTON_RETURN_IF_ERROR(CheckpointNow());
  }
  const bool evaluated = evaluated_step_ == step_;
  if (evaluated || RealClock().Now() - reported_ >= kReportEvery) {
    Report(epoch_end || last ? epoch_loss_.value() : report_loss_.value());
  }
  if (stop && !last) return Cancelled(fmt::format("stopped after step {}", step_));
  return Status::Ok();
}

Result<TrainOutcome> TrainLoop::Run() {
  LEPTON_RETURN_IF_ERROR(AgreeOnStart());
  started_ = reported_ = RealClock().Now();
  while (step_ < run_.last_step) {
    bool stop = false;
    LEPTON_RETURN_IF_ERROR(TakeStep(stop));
    LEPTON_RETURN_IF_ERROR(AfterStep(stop));
  }
  LEPTON_RETURN_IF_ERROR(EvaluateNow());  // a run that was resumed at its end has no step to take
  outcome_.steps = step_;
  outcome_.seconds = std::chrono::duration<double>(RealClock().Now() - started_).count();
  if (outcome_.seconds > 0 && samples_ > 0) {
    outcome_.samples_per_second = static_cast<double>(samples_) / outcome_.seconds;
  }
  return outcome_;
}

Result<uint64_t> LabelNumber(const std::string& key, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return InvalidArgument(fmt::format("labels.{}: \"{}\" is not a whole number", key, text));
}

}  // namespace

int LogicalShards(const spec::JobSpec& spec) {
  const int shards = spec.elastic.logical_shards;
  return shards > 0 ? shards : std::max(1, spec.resources.max_workers);
}

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
  return TrainLoop(run, observer).Run();
}

}  // namespace lepton::worker
