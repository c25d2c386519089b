#include "worker/distill/distill_task.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <span>
#include <vector>

#include "worker/device.h"
#include "worker/distill/teacher.h"
#include "worker/membership.h"
#include "worker/train/elastic_train.h"
#include "worker/train/evaluation.h"
#include "worker/train/start_model.h"
#include "worker/train/train_faults.h"
#include "worker/train/train_session.h"

namespace lepton::worker {
namespace {

// The baseline's progress: the job's own step stays at its end, the figures get a name of their
// own.
class BaselineObserver final : public TrainObserver {
 public:
  BaselineObserver(TaskContext& context, const TrainSession& session)
      : context_(context),
        session_(session),
        faults_(TrainFaults::FromEnvironment("LEPTON_TEST_BASELINE_FAULT")) {}
  bool StopRequested() override { return context_.stop_requested(); }
  // A joiner is not worth to begin the baseline anew; one that must go is.
  bool LeaveRequested() override {
    return context_.membership() != nullptr && context_.membership()->leave_requested();
  }
  void Progress(const TrainProgress& progress) override {
    wire::TaskProgress report;
    report.set_step(session_.stop_step);
    report.set_total_steps(session_.stop_step);
    report.set_samples_per_second(progress.samples_per_second);
    if (progress.step > 0) {  // the student's last one
      report.set_epoch(progress.epoch / static_cast<double>(progress.step) *
                       static_cast<double>(session_.stop_step));
    }
    (*report.mutable_metrics())["student_alone/step"] = static_cast<double>(progress.step);
    for (const auto& [name, value] : progress.metrics) {
      (*report.mutable_metrics())["student_alone/" + name] = value;
    }
    context_.ReportProgress(report);
  }
  Status Computed(uint64_t step, nn::TrainingProgram& program) override {
    return faults_.Computed(step, program);
  }
  void Diverged(const Divergence& found) override { ReportDivergence(context_, found); }

 private:
  TaskContext& context_;
  const TrainSession& session_;
  TrainFaults faults_;
};

// Test accuracy of the student that never met the teacher.
Result<double> TrainAlone(TaskContext& context, const TrainSession& session,
                          collectives::Communicator& gang) {
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<nn::TrainingProgram> program,
                          BuildProgram(context.spec(), session, /*distill=*/false));
  if (!context.start().model_manifest().empty()) {
    LEPTON_ASSIGN_OR_RETURN(const StoredModel from,
                            LoadModel(context.objects(), context.start().model_manifest()));
    LEPTON_RETURN_IF_ERROR(StartFrom(from, session.data, /*leader=*/false, *program));
  }
  const auto outer = MakeOuterOptimizer(context.spec(), *program);
  BaselineObserver observer(context, session);
  const TrainRun run = {.spec = context.spec(),
                        .data = session.data,
                        .program = *program,
                        .outer = outer.get(),
                        .gang = gang,
                        .last_step = session.stop_step,
                        .checkpoints = false};
  TrainLoop loop(run, observer);
  LEPTON_RETURN_IF_ERROR(loop.Enter(gang, /*has_state=*/true).status());
  LEPTON_RETURN_IF_ERROR(loop.Run().status());
  const Examples& test = *session.data.test;
  LEPTON_ASSIGN_OR_RETURN(const Evaluation evaluation, Evaluate(*program, test, test.rows(), gang));
  return evaluation.accuracy;
}

// What a distillation does in each group: the teacher's logits before the student's loop, the two
// models to compare it with behind it.
class Distillation final : public GroupWork {
 public:
  Distillation(TaskContext& context, TrainSession& session, Teacher& teacher)
      : context_(context), session_(session), teacher_(teacher) {}

  Status Begin(collectives::Communicator& gang) override {
    return teacher_.ShareLogits(*session_.data.train_plain, gang, logits_);
  }
  std::span<const float> teacher_logits() const override { return logits_; }
  Result<Metrics> End(collectives::Communicator& gang) override {
    const Examples& test = *session_.data.test;
    LEPTON_ASSIGN_OR_RETURN(const Evaluation taught,
                            Evaluate(teacher_.program(), test, test.rows(), gang));
    // Only measured against: where it comes to nothing, on all ranks alike, the student still
    // counts.
    const Result<double> alone = TrainAlone(context_, session_, gang);
    const bool came_to_nothing = alone.status().code() == StatusCode::kFailedPrecondition;
    if (!alone.ok() && !came_to_nothing) return alone.status().WithContext("the student alone");
    if (came_to_nothing) {
      LOG(WARNING) << "the student alone, to compare with, is left out: "
                   << alone.status().message();
    }
    Metrics metrics = {{"teacher/parameters", static_cast<double>(teacher_.parameters())},
                       {"student/parameters",
                        static_cast<double>(nn::ElementsOf(session_.program->parameters()))}};
    if (test.rows() > 0) {
      metrics["teacher/accuracy"] = taught.accuracy;
      if (alone.ok()) metrics["student_alone/accuracy"] = *alone;
    }
    return metrics;
  }

 private:
  TaskContext& context_;
  TrainSession& session_;
  Teacher& teacher_;
  std::vector<float> logits_;
};

}  // namespace

Status RunDistill(TaskContext& context) {
  if (!context.spec().distill) return InvalidArgument("kind: distill needs a teacher");
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<kernels::DeviceBackend> device,
                          OpenDevice(context.spec().resources.device));
  Result<Teacher> loaded =
      Teacher::Load(context.objects(), context.start().teacher_manifest(), std::move(device));
  if (!loaded.ok()) return loaded.status().WithContext("teacher");
  Teacher& teacher = *loaded;
  LEPTON_ASSIGN_OR_RETURN(TrainSession session, OpenSession(context, &teacher.model()));
  Distillation work(context, session, teacher);
  if (context.membership() != nullptr) return TrainElastically(context, session, &work);
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<collectives::Communicator> gang,
                          context.JoinGang());
  LEPTON_RETURN_IF_ERROR(work.Begin(*gang));
  TaskObserver observer(context, session);
  const TrainRun run = {.spec = context.spec(),
                        .data = session.data,
                        .program = *session.program,
                        .outer = session.outer.get(),
                        .gang = *gang,
                        .teacher_logits = work.teacher_logits(),
                        .first_step = session.first_step,
                        .first_samples = session.first_samples,
                        .first_epoch_loss = session.first_epoch_loss,
                        .last_step = session.stop_step,
                        .checkpoint_at_end = true,  // a lost baseline need not redo the student
                        .resumed_from = context.start().resume_checkpoint(),
                        .first_state = session.first_state};
  TrainLoop loop(run, observer);
  LEPTON_RETURN_IF_ERROR(loop.Enter(*gang, /*has_state=*/true).status());
  LEPTON_ASSIGN_OR_RETURN(const TrainOutcome outcome, loop.Run());
  LEPTON_ASSIGN_OR_RETURN(const Metrics metrics, work.End(*gang));
  return FinishSession(context, session, outcome, metrics, *gang);
}

}  // namespace lepton::worker
