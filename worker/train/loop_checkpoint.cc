#include "worker/train/train_loop_impl.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/train/evaluation.h"

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

double Mean(const nn::LossSum& total) {
  return total.count > 0 ? total.sum / total.count : 0;
}

}  // namespace

Status TrainLoop::Impl::AfterStep() {
  // Its peers are not where they would hear of it.
  if (Status written = TakeWritten(); !written.ok()) return Abort(std::move(written));
  const bool stop = state_.stopping;
  const uint64_t every =
      static_cast<uint64_t>(std::max<int64_t>(0, run_.spec.checkpoint.every_steps));
  const bool epoch_end = Passed(source_.steps_per_epoch());
  const bool last = state_.step == run_.last_step;
  const bool stale = state_.evaluated_step > state_.step ||
                     state_.step - state_.evaluated_step >= kStepsBetweenEvaluations;
  if (last || (epoch_end && stale && !stop)) LEPTON_RETURN_IF_ERROR(EvaluateNow());
  const bool due = (every > 0 && Passed(every)) || state_.checkpoint_due;
  if (run_.checkpoints && (stop || (last && run_.checkpoint_at_end) || (due && !last))) {
    LEPTON_RETURN_IF_ERROR(CheckpointNow(stop || last ? Write::kNow : Write::kBesideSteps));
  }
  const bool evaluated = state_.evaluated_step == state_.step;
  if (evaluated || RealClock().Now() - reported_ >= kReportEvery) {
    Report(Mean(epoch_end || last ? state_.epoch_loss : state_.report_loss));
  }
  if (!stop || last) return Status::Ok();
  parting_.saved = run_.checkpoints;
  return Cancelled(fmt::format("stopped after step {}", state_.step));
}

Status TrainLoop::Impl::EvaluateNow() {
  if (state_.evaluated_step == state_.step) return Status::Ok();
  LEPTON_RETURN_IF_ERROR(FinishJoin());
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

// Rank 0 writes; all ranks learn the digest, or that it failed: at once, or before the next one.
Status TrainLoop::Impl::CheckpointNow(Write how) {
  // A training's checkpoints are compared by their figures only where the best are kept.
  const bool compared = run_.spec.checkpoint.keep_best.count > 0 || how == Write::kNow;
  LEPTON_RETURN_IF_ERROR(compared ? EvaluateNow() : FinishJoin());
  LEPTON_RETURN_IF_ERROR(FinishCheckpoint());
  state_.checkpoint_due = false;
  const Metrics metrics = state_.evaluated_step == state_.step ? state_.metrics : Metrics();
  if (how == Write::kBesideSteps && !zero_ && !tensor_) {
    if (leader()) {
      writing_ = observer_.BeginCheckpoint(state_.step, metrics);
      writing_step_ = state_.step;
    }
    state_.pending_step = state_.step;
    return Status::Ok();
  }
  Status written;
  char digest[64] = {};
  const bool in_parts = zero_ || tensor_;
  if (leader() || zero_ || (tensor_ && tensor_->first_replica())) {
    const Result<storage::Digest> result =
        in_parts ? CheckpointParts(metrics) : observer_.Checkpoint(state_.step, metrics);
    if (result.ok()) std::memcpy(digest, result->data(), std::min<size_t>(64, result->size()));
    written = result.status().WithContext(fmt::format("checkpoint of step {}", state_.step));
  }
  collectives::Communicator& all = tensor_ ? tensor_->gang() : *gang_;
  if (all.size() > 1) {
    LEPTON_RETURN_IF_ERROR(all.Broadcast(digest, sizeof(digest), collectives::DataType::kUInt8, 0));
  }
  LEPTON_RETURN_IF_ERROR(written);
  if (digest[0] == 0) return Aborted("rank 0 could not write the checkpoint");
  state_.last_checkpoint.assign(digest, sizeof(digest));
  state_.good_step = state_.step;
  return Status::Ok();
}

// Does not wait. An error is this rank's: its peers go on without it, and write another.
Status TrainLoop::Impl::TakeWritten() {
  if (!writing_.valid()) return Status::Ok();
  if (writing_.wait_for(Duration::zero()) != std::future_status::ready) return Status::Ok();
  Result<storage::Digest> result = writing_.get();
  if (!result.ok()) {
    const uint64_t step = std::exchange(writing_step_, 0);
    return result.status().WithContext(fmt::format("checkpoint of step {}", step));
  }
  written_ = *std::move(result);
  return Status::Ok();
}

// Waits for the one that is on its way, whoever of the group writes it.
Status TrainLoop::Impl::FinishCheckpoint() {
  if (state_.pending_step == 0) return Status::Ok();
  struct Told {
    int64_t writes = 0;
    char digest[64] = {};
  };
  Told mine;
  Status written;
  if (writing_step_ == state_.pending_step) {
    mine.writes = 1;
    if (writing_.valid()) writing_.wait();
    written = TakeWritten();
    if (written.ok()) {
      std::memcpy(mine.digest, written_.data(), std::min(sizeof(mine.digest), written_.size()));
    }
  }
  std::vector<Told> all = {mine};
  if (gang_->size() > 1) {
    all.resize(static_cast<size_t>(gang_->size()));
    LEPTON_RETURN_IF_ERROR(
        gang_->AllGather(&mine, all.data(), sizeof(Told), collectives::DataType::kUInt8)
            .WithContext("whose checkpoint is written"));
  }
  LEPTON_RETURN_IF_ERROR(written);
  const auto writer =
      std::find_if(all.begin(), all.end(), [](const Told& told) { return told.writes != 0; });
  if (writer != all.end() && writer->digest[0] == 0) {
    return Aborted(fmt::format("rank {} could not write the checkpoint of step {}",
                               writer - all.begin(), state_.pending_step));
  }
  const uint64_t step = std::exchange(state_.pending_step, 0);
  writing_step_ = 0;
  if (writer == all.end()) return Status::Ok();
  state_.last_checkpoint.assign(writer->digest, sizeof(writer->digest));
  state_.good_step = step;
  return Status::Ok();
}

// As a group meets: `writing` has the step of whose checkpoint each rank writes. One that nobody
// writes any more is done again, by whoever leads, behind this step if it is this one's.
void TrainLoop::Impl::LookForWriter(std::span<const uint64_t> writing) {
  if (state_.pending_step == 0) return;
  if (std::find(writing.begin(), writing.end(), state_.pending_step) != writing.end()) return;
  LOG(WARNING) << "the checkpoint of step " << state_.pending_step
               << " is lost with the rank that wrote it; another follows";
  if (state_.pending_step == state_.step) state_.step_closed = false;
  state_.checkpoint_due = true;
  state_.pending_step = 0;
}

// Empty on ranks that only give what they hold.
Result<storage::Digest> TrainLoop::Impl::CheckpointParts(const Metrics& metrics) {
  if (!leader()) {
    LEPTON_RETURN_IF_ERROR(CollectParts(nullptr));
    return storage::Digest();
  }
  bool collected = false;
  Result<storage::Digest> written =
      observer_.CheckpointParts(state_.step, metrics, [&](const ZeroState::TakeState& take) {
        collected = true;
        return CollectParts(take);
      });
  const auto ignore = [](const std::vector<ZeroState::StatePart>&) { return Status::Ok(); };
  if (!collected) LEPTON_RETURN_IF_ERROR(CollectParts(ignore));
  return written;
}

Status TrainLoop::Impl::CollectParts(const ZeroState::TakeState& take) {
  return tensor_ ? tensor_->Collect(run_.program, take) : zero_->Collect(*gang_, take);
}

std::string TrainLoop::Impl::LastGood() const {
  return state_.last_checkpoint.empty() ? "no checkpoint yet"
                                        : fmt::format("last good checkpoint: step {} ({})",
                                                      state_.good_step, state_.last_checkpoint);
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

}  // namespace lepton::worker
