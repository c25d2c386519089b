#include "tests/scheduler/core/protocol_coordinator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "scheduler/core/job_state.h"

namespace lepton::scheduler::model {
namespace {

std::string CoordinatorKey(const Snapshot& snapshot, int64_t now) {
  std::string key;
  for (const Job& job : snapshot.jobs()) key += fmt::format("j{}", int(job.state()));
  for (const Gang& g : snapshot.gangs()) {
    key +=
        fmt::format("|g{}.{}.[{}].{}{}{}{}{}{}.{}.{}", int(g.state()), g.epoch(),
                    fmt::join(g.members(), " "), g.forming(), g.forming_ms() > 0, g.has_recovery(),
                    g.progressed(), g.has_result(), g.winds_down(), g.faults_in_row(), g.kills());
    for (const Task& t : g.tasks()) {
      if (t.state() == TASK_FINISHED || t.state() == TASK_LOST) {
        key += fmt::format(",over{}{}", t.code() == "OK", t.group_epoch() > 0);
        continue;
      }
      key +=
          fmt::format(",{}.{}{}{}.{}.{}", int(t.state()), t.worker_id(), t.has_endpoint(),
                      int{t.leaving()} + int{t.leaves_at_once()}, t.left_epoch(), t.group_epoch());
      for (const wire::Unreachable& other : t.unreachable())
        key += fmt::format("!{}", other.seat());
    }
    for (const Cut& cut : g.cuts()) {
      key += fmt::format("|x{}-{}{}", cut.worker_a(), cut.worker_b(), now < cut.retry_at_ms());
    }
  }
  for (const Worker& w : snapshot.workers()) key += fmt::format("|w{}", int(w.state()));
  return key;
}

}  // namespace

ImagePtr TakeImage(const Reactor& reactor, std::set<std::string> greeted, int64_t now) {
  auto image = std::make_shared<Image>();
  Snapshot snapshot;
  snapshot.ParseFromString(reactor.state().Snapshot());
  for (Job& job : *snapshot.mutable_jobs()) {
    job.clear_events();
    job.clear_recoveries();
    image->job_state = JobStateName(job.state());
    image->over = IsTerminal(job.state()) || job.state() == JOB_RECOVERING ||
                  job.state() == JOB_QUEUED || job.state() == JOB_STOPPING || job.attempt() > 1;
    image->gone =
        image->over && (IsTerminal(job.state()) || job.attempt() > 1 || snapshot.gangs().empty());
  }
  for (const Gang& gang : snapshot.gangs()) {
    for (const Task& task : gang.tasks()) image->tasks[static_cast<int>(task.rank())] = task;
  }
  image->snapshot = snapshot.SerializeAsString();
  image->key = CoordinatorKey(snapshot, now);
  for (const std::string& name : greeted) image->key += "+" + name;
  image->greeted = std::move(greeted);
  image->now = now;
  return image;
}

int SeatOf(const std::string& task_id) {
  return std::stoi(task_id.substr(task_id.rfind(".r") + 2));
}

std::string WorkerName(size_t worker) {
  return "w" + std::to_string(worker);
}

}  // namespace lepton::scheduler::model
