#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/clock.h"
#include "worker/train/evaluation.h"
#include "worker/train/train_loop_impl.h"

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
  if (state_.pending_slices > 0 && wishes_.written == state_.pending_slices) {
    LEPTON_RETURN_IF_ERROR(GatherSlices());
  }
  LEPTON_RETURN_IF_ERROR(CheckSamples());
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
    // What follows a step may be done again, behind the report of it.
    const bool reported = state_.report_loss.count == 0;
    Report(Mean(epoch_end || last || reported ? state_.epoch_loss : state_.report_loss));
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

std::optional<SampleCount> TrainLoop::Impl::SamplesUsed() const {
  return state_.samples_counted ? std::optional(state_.samples) : std::nullopt;
}

void TrainLoop::Impl::Report(double train_loss) {
  const MonotonicTime now = RealClock().Now();
  if (leader()) Tell(train_loss, std::chrono::duration<double>(now - reported_).count());
  // On all ranks: who leads from the next step on tells of what comes behind this one.
  reported_ = now;
  reported_samples_ = samples_;
  state_.report_loss = {};
}

// `seconds` since the last report.
void TrainLoop::Impl::Tell(double train_loss, double seconds) {
  TrainProgress progress;
  progress.step = state_.step;
  progress.epoch =
      static_cast<double>(state_.step) / static_cast<double>(source_.steps_per_epoch());
  if (seconds > 0) {
    progress.samples_per_second = static_cast<double>(samples_ - reported_samples_) / seconds;
  }
  progress.samples = SamplesUsed();
  if (state_.evaluated_step == state_.step) progress.metrics = state_.metrics;
  progress.metrics["train/loss"] = train_loss;
  progress.metrics["learning_rate"] =
      run_.program.LearningRate(state_.step > 0 ? state_.step - 1 : 0);
  progress.metrics["grad_norm"] = state_.gradient_norm;
  observer_.Progress(progress);
}

}  // namespace lepton::worker
