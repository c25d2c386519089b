#include "worker/train/train_loop.h"

#include <glog/logging.h>

#include <tuple>

#include "worker/train/train_loop_impl.h"

namespace lepton::worker {

TrainLoop::Impl::Impl(const TrainRun& run, TrainObserver& observer)
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
      tensor_(run.tensor),
      loss_fold_(std::tuple_size_v<SplitLoss>) {
  const int stage = run.spec.parallel.zero;
  if (stage > 0) {
    const int stripes =
        StripesFor(TrainedElements(run.program.parameters()), run.spec.gradients.piece_bytes(),
                   run.spec.resources.max_workers);
    zero_.emplace(run.program, stripes, run.first_step, run.first_state, stage == 3);
    if (stage == 3) zero_weights_.emplace(*zero_, run.spec.gradients.piece_bytes());
  }
  if (stage < 2) {
    exchange_.emplace(run.program, GradientExchange::OptionsOf(run.spec));
  } else {
    zero_gradients_.emplace(run.program, shards_, pieces_, stage == 3);
  }
  CHECK_EQ(run.outer != nullptr, run.spec.local_sgd.inner_steps > 0);
  if (run.outer != nullptr) rounds_.emplace(run.program, *run.outer, run.spec);
  joining_.emplace([this] { return StateColumns(); }, JoinPiece());
  state_.step = state_.good_step = run.first_step;
  state_.samples = run.first_samples.value_or(SampleCount{});
  state_.samples_counted = run.first_samples.has_value();
  state_.epoch_loss = run.first_epoch_loss;
  state_.last_checkpoint = run.resumed_from;
}

Result<TrainOutcome> TrainLoop::Impl::Run() {
  reported_ = stepped_ = RealClock().Now();
  reported_samples_ = samples_;
  if (started_ == MonotonicTime{}) started_ = reported_;
  if (meets_to_part_) return Part();
  while (true) {
    LEPTON_RETURN_IF_ERROR(MayCutOver());
    if (!state_.step_closed) {
      LEPTON_RETURN_IF_ERROR(AfterStep());
      state_.step_closed = true;
    }
    LEPTON_RETURN_IF_ERROR(MayPart());
    if (state_.step >= run_.last_step) break;
    LEPTON_RETURN_IF_ERROR(TakeStep());
  }
  LEPTON_RETURN_IF_ERROR(FinishCheckpoint());
  LEPTON_RETURN_IF_ERROR(EvaluateNow());  // a run that was resumed at its end has no step to take
  LEPTON_RETURN_IF_ERROR(CheckEqualAtEnd());
  TrainOutcome outcome;
  outcome.steps = state_.step;
  outcome.metrics = state_.metrics;
  outcome.samples = SamplesUsed();
  outcome.bytes = bytes();
  outcome.last_checkpoint = state_.last_checkpoint;
  outcome.seconds = state_.seconds;
  const double seconds = std::chrono::duration<double>(RealClock().Now() - started_).count();
  if (seconds > 0 && samples_ > 0) {
    outcome.samples_per_second = static_cast<double>(samples_) / seconds;
  }
  return outcome;
}

StateBytes TrainLoop::Impl::bytes() const {
  nn::TrainingProgram& program = run_.program;
  const uint64_t held = zero_ ? static_cast<uint64_t>(zero_->held_bytes()) : 0;
  const uint64_t weights = zero_ ? static_cast<uint64_t>(zero_->held_weight_bytes()) : 0;
  return {.weights = program.weights().size_bytes() + weights,
          .gradients = program.gradients().size_bytes() +
                       (exchange_ ? exchange_->bytes() : zero_gradients_->bytes()) +
                       (rounds_ ? rounds_->bytes() : 0),
          .optimizer = program.optimizer_state().size_bytes() + held +
                       (rounds_ ? run_.outer->state().size_bytes() : 0),
          .arena = program.arena_bytes(),
          .packs = program.pack_bytes(),
          .visiting = program.visiting_bytes() + (zero_weights_ ? zero_weights_->bytes() : 0)};
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

const Parting& TrainLoop::parting() const {
  return impl_->parting();
}

StateBytes TrainLoop::bytes() const {
  return impl_->bytes();
}

Result<TrainOutcome> RunTrainLoop(const TrainRun& run, TrainObserver& observer) {
  TrainLoop loop(run, observer);
  LEPTON_RETURN_IF_ERROR(loop.Enter(run.gang, /*has_state=*/true).status());
  return loop.Run();
}

}  // namespace lepton::worker
