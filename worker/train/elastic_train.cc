#include "worker/train/elastic_train.h"

#include <glog/logging.h>

#include <chrono>
#include <optional>
#include <utility>

#include "worker/membership.h"

namespace lepton::worker {
namespace {

double Milliseconds(MonotonicTime from, MonotonicTime to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// The loop's effects, and the ledger of what a change of the group cost.
class ElasticObserver final : public TrainObserver {
 public:
  ElasticObserver(TaskContext& context, const TrainSession& session)
      : task_(context, session), membership_(*context.membership()) {}

  bool StopRequested() override { return task_.StopRequested(); }
  bool LeaveRequested() override { return membership_.leave_requested(); }
  bool RegroupRequested() override { return membership_.regroup_requested(); }
  void Progress(const TrainProgress& progress) override { task_.Progress(progress); }
  CheckpointDone BeginSlice(uint64_t step, int number, const Slices& slices) override {
    return task_.BeginSlice(step, number, slices);
  }
  CheckpointDone BeginManifest(const CheckpointPoint& point,
                               const std::vector<storage::Digest>& slices) override {
    return task_.BeginManifest(point, slices);
  }
  CheckpointDone BeginCheckpoint(const CheckpointPoint& point, const Slices& slices) override {
    return task_.BeginCheckpoint(point, slices);
  }
  Status Computed(uint64_t step, nn::TrainingProgram& program) override {
    return task_.Computed(step, program);
  }
  void Reduced() override { task_.Reduced(); }
  void StateArrives() override { task_.StateArrives(); }
  void Diverged(const Divergence& found) override { task_.Diverged(found); }
  void Committed(uint64_t step) override {
    task_.Committed(step);
    Recovered(step);
  }

  // Training goes on: behind a step, or what comes behind the last one.
  void Recovered(uint64_t step) {
    if (!restored_) return;
    wire::TaskRecovered report = *std::exchange(recovered_, std::nullopt);
    report.set_step(step);
    report.set_first_commit_ms(Milliseconds(*restored_, RealClock().Now()));
    report.set_committed_wall_ms(RealClock().WallMs());
    restored_.reset();
    membership_.ReportRecovered(report);
  }

  // On the leader of a later group, once every rank has the state.
  void Entered(const Membership::Group& group, uint64_t restored_bytes) {
    restored_ = RealClock().Now();
    recovered_.emplace();
    recovered_->set_epoch(group.epoch);
    recovered_->set_rebuild_ms(Milliseconds(group.ordered, group.joined));
    recovered_->set_restore_ms(Milliseconds(group.joined, *restored_));
    recovered_->set_restored_bytes(restored_bytes);
  }
  void Left() { restored_.reset(); }

 private:
  TaskObserver task_;
  Membership& membership_;
  std::optional<MonotonicTime> restored_;
  std::optional<wire::TaskRecovered> recovered_;
};

// A peer, or the group's time, is to blame.
bool GroupIsOver(const Status& status) {
  return status.code() == StatusCode::kAborted || status.code() == StatusCode::kUnavailable ||
         status.code() == StatusCode::kDeadlineExceeded;
}

class ElasticTraining {
 public:
  ElasticTraining(TaskContext& context, const TrainSession& session, GroupWork* work)
      : context_(context),
        session_(session),
        work_(work),
        observer_(context, session),
        has_state_(!context.start().joins()) {}

  Status Run() {
    std::string cause;
    Parting parting;
    while (true) {
      Result<Membership::Group> group = context_.membership()->Next(cause, parting);
      if (!group.ok()) {
        // Perhaps nobody else has what this rank has.
        if (loop_ && has_state_) LEPTON_RETURN_IF_ERROR(loop_->Salvage());
        return group.status();
      }
      entered_ = false;
      const Status status = TakePart(*group);
      parting = entered_ ? loop_->parting() : Parting();
      if (status.code() == StatusCode::kCancelled && parting.saved) {
        wire::TaskFinished last;
        last.set_saved(true);
        context_.SetResult(last);
      }
      if (status.ok() || !GroupIsOver(status)) return status;
      cause = status.message();
      LOG(INFO) << "epoch " << group->epoch << " is over: " << cause;
      observer_.Left();
    }
  }

 private:
  Status TakePart(const Membership::Group& group) {
    collectives::Communicator& gang = *group.gang;
    if (work_ != nullptr) LEPTON_RETURN_IF_ERROR(work_->Begin(gang));
    if (!loop_) {
      run_.emplace(TrainRun{
          .spec = context_.spec(),
          .data = session_.data,
          .program = *session_.program,
          .outer = session_.outer.get(),
          .gang = gang,
          .teacher_logits = work_ != nullptr ? work_->teacher_logits() : std::span<const float>(),
          .first_step = session_.first_step,
          .first_samples = session_.first_samples,
          .first_epoch_loss = session_.first_epoch_loss,
          .last_step = session_.stop_step,
          // What follows the loop need not cost it again; a trial goes on from it.
          .checkpoint_at_end = work_ != nullptr || context_.start().kind() == "trial",
          .resumed_from = context_.start().resume_checkpoint(),
          .first_state = session_.first_state});
      loop_.emplace(*run_, observer_);
    }
    entered_ = true;
    LEPTON_ASSIGN_OR_RETURN(const uint64_t bytes, loop_->Enter(gang, has_state_));
    has_state_ = true;
    if (gang.rank() == 0 && group.epoch > 1) observer_.Entered(group, bytes);
    LEPTON_ASSIGN_OR_RETURN(const TrainOutcome outcome, loop_->Run());
    observer_.Recovered(outcome.steps);
    Metrics further;
    if (work_ != nullptr) {
      LEPTON_ASSIGN_OR_RETURN(further, work_->End(gang));
    }
    return FinishSession(context_, session_, outcome, further, gang);
  }

  TaskContext& context_;
  const TrainSession& session_;
  GroupWork* const work_;
  ElasticObserver observer_;
  bool has_state_;
  bool entered_ = false;         // the loop, in the newest group
  std::optional<TrainRun> run_;  // its group is the first one
  std::optional<TrainLoop> loop_;
};

}  // namespace

Status TrainElastically(TaskContext& context, const TrainSession& session, GroupWork* work) {
  return ElasticTraining(context, session, work).Run();
}

}  // namespace lepton::worker
