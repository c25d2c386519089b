#include "scheduler/loop/batch.h"

#include <glog/logging.h>

#include "scheduler/loop/recovery_metrics.h"

namespace lepton::scheduler {

void StateLoop::Batch::Persist(const Record& record) {
  records_.push_back(RecordBytes(record));
}

template <typename Message>
void StateLoop::Batch::Send(void (LoopSink::*send)(const WorkerId&, const Message&),
                            const WorkerId& worker, const Message& message) {
  sends_.push_back(
      [send, worker, message](LoopSink& sink, const State&) { (sink.*send)(worker, message); });
}

void StateLoop::Batch::Welcome(const WorkerId& worker, const wire::Welcome& welcome) {
  Send(&LoopSink::Welcome, worker, welcome);
}
void StateLoop::Batch::Start(const WorkerId& worker, const wire::StartTask& start) {
  Send(&LoopSink::Start, worker, start);
}
void StateLoop::Batch::SendGroup(const WorkerId& worker, const wire::TaskGroup& group) {
  Send(&LoopSink::SendGroup, worker, group);
}
void StateLoop::Batch::SendShards(const WorkerId& worker, const wire::TaskShards& shards) {
  Send(&LoopSink::SendShards, worker, shards);
}
void StateLoop::Batch::Stop(const WorkerId& worker, const wire::StopTask& stop) {
  Send(&LoopSink::Stop, worker, stop);
}
void StateLoop::Batch::Ack(const WorkerId& worker, const wire::ReportAck& ack) {
  Send(&LoopSink::Ack, worker, ack);
}
void StateLoop::Batch::Drain(const WorkerId& worker, const wire::Drain& drain) {
  Send(&LoopSink::Drain, worker, drain);
}

void StateLoop::Batch::Answer(const Reply& reply) {
  CHECK(reply.request >= 1 && reply.request <= items_.size());
  sends_.push_back([this, reply](LoopSink&, const State& state) {
    if (auto& replied = items_[reply.request - 1].replied) replied(reply, state);
  });
}

void StateLoop::Batch::Notify(const Event& event) {
  if (event.job_id().empty()) return;
  jobs_.insert(JobId(event.job_id()));
  LOG_IF(ERROR, event.reason_code() == "CHECKPOINT_LOST")
      << "job " << event.job_id() << ": " << event.cause();
  // A gang that has gone on, or again: its job's ledger has a new entry.
  const bool again = event.from() == "REGROUPING" || event.from() == "RECOVERING";
  if (event.type() != "gang" || !again || event.to() != "RUNNING") return;
  sends_.push_back([job = JobId(event.job_id())](LoopSink&, const State& state) {
    const Job* known = state.FindJob(job);
    if (known != nullptr && !known->recoveries().empty())
      CountRecovery(*known->recoveries().rbegin());
  });
}

void StateLoop::Batch::Accepted(const JobId& job, int trial, const wire::TaskReport& report) {
  if (!job.empty()) jobs_.insert(job);
  sends_.push_back(
      [job, trial, report](LoopSink& sink, const State&) { sink.Accepted(job, trial, report); });
  if (!report.log().checkpoint_lost().empty()) {
    sends_.push_back([](LoopSink&, const State&) { CountLostCheckpoint(); });
  }
  if (report.has_group_faults()) {
    sends_.push_back(
        [faults = report.group_faults()](LoopSink&, const State&) { CountGroupFaults(faults); });
  }
  if (report.has_finished() && report.finished().has_diverged()) {
    sends_.push_back([diverged = report.finished().diverged()](LoopSink&, const State&) {
      CountDivergence(diverged);
    });
  }
}

void StateLoop::Batch::Returned(const Return& seen) {
  sends_.push_back([seen](LoopSink&, const State&) { NoteReturn(seen); });
}

void StateLoop::Batch::ForgetJob(const JobId& job) {
  sends_.push_back([job](LoopSink& sink, const State&) { sink.ForgetJob(job); });
}

void StateLoop::Batch::ForgetObjects(const std::vector<std::string>& digests) {
  forgotten_.insert(forgotten_.end(), digests.begin(), digests.end());
}

void StateLoop::Batch::Perform(LoopSink& sink, const State& state, ObjectKeeper& keeper) {
  for (const auto& send : sends_) send(sink, state);
  keeper.Forget(forgotten_);
  sink.Committed(state, jobs_);
}

}  // namespace lepton::scheduler
