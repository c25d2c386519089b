// The agent's tasks: starting, stopping, reporting.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "runtime/base/logging.h"
#include "worker/agent_loop.h"
#include "worker/log_lines.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;

constexpr size_t kEndedTasksKept = 4096;
constexpr char kPmixStore[] = "PMIX_MCA_gds";
constexpr char kVisibleGpus[] = "CUDA_VISIBLE_DEVICES";

// Its gang need not wait for what it left.
wire::TaskReport GoneReport(const wire::TaskReport& finished) {
  wire::TaskReport report;
  report.set_task_id(finished.task_id());
  report.set_wall_ms(finished.wall_ms());
  const wire::TaskFinished& end = finished.finished();
  wire::TaskGone& gone = *report.mutable_gone();
  gone.set_code(end.code());
  gone.set_message(end.message());
  gone.set_signal(end.signal());
  gone.set_silent_since_ms(end.silent_since_ms());
  gone.set_saved(end.saved());
  if (end.has_diverged()) *gone.mutable_diverged() = end.diverged();
  return report;
}

}  // namespace

void Agent::Loop::OnStartTask(wire::StartTask start) {
  const std::string task_id = start.task_id();
  if (task_id.empty()) {
    LOG(ERROR) << "StartTask without a task id: ignored";
    return;
  }
  if (runners_.contains(task_id) || outbox_.Has(task_id) || ended_.contains(task_id)) return;
  start.set_slots(std::max(1u, start.slots()));
  if (phase_ != Phase::kWorking) return Refuse(start, Unavailable("this worker is leaving"));
  if (!start.no_slot() && UsedSlots() + start.slots() > options_.slots) {
    return Refuse(start, ResourceExhausted("this worker has " + std::to_string(options_.slots) +
                                           " slots, " + std::to_string(UsedSlots()) + " in use"));
  }
  LOG(INFO) << "task " << task_id << ": " << start.kind() << ", rank " << start.rank() << " of "
            << start.size();
  std::vector<storage::Digest> inputs;
  for (const wire::ObjectRef& input : start.inputs()) inputs.push_back(input.digest());
  const std::shared_ptr<const CpuShare> share = TakeShare(static_cast<int>(start.slots()));
  const std::shared_ptr<const GpuShare> gpu = TakeGpu(start);
  TaskRunner::Events events;
  events.report = [this, hold = cache_->Keep(inputs), share, gpu](wire::TaskReport report) {
    Post([this, report = std::move(report)]() mutable { OnReport(std::move(report)); });
  };
  ChildProcess::Command command = TaskCommand(start, *share, *gpu);
  runners_.emplace(
      task_id, std::make_unique<TaskRunner>(std::move(start), std::move(command), objects_.get(),
                                            options_.exit_limit, std::move(events)));
}

// The machine is looked at with the first task: a worker starts without.
std::shared_ptr<const CpuShare> Agent::Loop::TakeShare(int slots) {
  if (options_.cpu_folder.empty()) return std::make_shared<CpuShare>();
  if (!cpu_shares_) cpu_shares_.emplace(UsableCpus(), options_.cpu_folder);
  return cpu_shares_->Take(slots);
}

std::shared_ptr<const GpuShare> Agent::Loop::TakeGpu(const wire::StartTask& start) {
  if (!start.gpu() || options_.gpus == 0) return std::make_shared<GpuShare>();
  if (!gpu_shares_) {
    const auto& folder = options_.gpu_folder;
    gpu_shares_.emplace(GpuNames(static_cast<int>(options_.gpus), std::getenv(kVisibleGpus)),
                        folder.empty() ? GpuShares::DefaultFolder() : folder);
  }
  return gpu_shares_->Take(start.group_token());
}

ChildProcess::Command Agent::Loop::TaskCommand(const wire::StartTask& start, const CpuShare& share,
                                               const GpuShare& gpu) const {
  ChildProcess::Command command;
  command.cpus = share.cpus;
  command.memory_node = share.node;
  command.arguments = options_.task_command;
  for (const std::string& argument :
       {std::string("--task"), start.task_id(), std::string("--fd"),
        std::to_string(ChildProcess::kSocketInChild), std::string("--data-dir"),
        options_.data_dir.string(), std::string("--bind"), options_.data_address}) {
    command.arguments.push_back(argument);
  }
  // For the libraries that a task uses; idle threads of one task must not take another's cores.
  command.environment = {{"OMP_NUM_THREADS", std::to_string(start.slots())},
                         {"OMP_WAIT_POLICY", "passive"}};
  if (!gpu.gpu.empty()) command.environment[kVisibleGpus] = gpu.gpu;
  // Of the processes of one rank that ask the launcher's PMIx, its shared-memory store answers the
  // first alone, and a task that uses MPI is a later one.
  if (std::getenv(kPmixStore) == nullptr) command.environment[kPmixStore] = "hash";
  return command;
}

void Agent::Loop::OnStopTask(const wire::StopTask& stop) {
  const auto runner = runners_.find(stop.task_id());
  if (runner != runners_.end()) {
    runner->second->Stop(milliseconds(stop.grace_ms()), stop.reason(), stop.alone(),
                         stop.at_once());
    return;
  }
  if (outbox_.Has(stop.task_id()) || ended_.contains(stop.task_id())) return;
  // Its StartTask was lost: whoever waits for the task's end hears of it.
  TellEnd(stop.task_id(), Cancelled("stopped before it started"), /*refused=*/false);
}

void Agent::Loop::Refuse(const wire::StartTask& start, const Status& why) {
  TellEnd(start.task_id(), why, /*refused=*/true);
}

void Agent::Loop::TellEnd(const std::string& task_id, const Status& why, bool refused) {
  wire::TaskReport report;
  report.set_task_id(task_id);
  report.set_wall_ms(RealClock().WallMs());
  report.mutable_finished()->set_code(std::string(StatusCodeName(why.code())));
  report.mutable_finished()->set_message(why.message());
  report.mutable_finished()->set_refused(refused);
  RememberEnded(task_id);
  outbox_.Add(task_id, std::move(report));
}

void Agent::Loop::OnReport(wire::TaskReport report) {
  const std::string task_id = report.task_id();
  const auto runner = runners_.find(task_id);
  if (runner == runners_.end()) return;  // forgotten, since the coordinator does not know it
  if (report.has_finished()) {
    LOG(INFO) << "task " << task_id << ": " << report.finished().code() << " "
              << report.finished().message();
    RememberEnded(task_id);
    ran_.insert(task_id);
    runners_.erase(runner);
    cache_->Look();
  }
  const std::vector<storage::Digest> objects = Uploader::ObjectsOf(report);
  if (report.has_finished() && (!objects.empty() || outbox_.Holds(task_id))) {
    outbox_.Add(task_id, GoneReport(report));
  }
  if (!objects.empty()) {
    const uint64_t entry = outbox_.Add(task_id, report, /*held=*/true);
    uploader_->Add(entry, std::move(report), cache_->Keep(objects));
  } else {
    outbox_.Add(task_id, std::move(report));
  }
}

// The coordinator has no such task: it is killed, and nobody wants its reports.
void Agent::Loop::ForgetTask(const std::string& task_id) {
  if (runners_.contains(task_id)) LOG(WARNING) << "task " << task_id << " is not wanted: killed";
  outbox_.Forget(task_id);
  ran_.erase(task_id);
  RememberEnded(task_id);
  runners_.erase(task_id);
}

uint32_t Agent::Loop::UsedSlots() const {
  uint32_t used = 0;
  for (const auto& [id, runner] : runners_) used += runner->slots();
  return used;
}

void Agent::Loop::RememberEnded(const std::string& task_id) {
  if (!ended_.insert(task_id).second) return;
  ended_order_.push_back(task_id);
  if (ended_order_.size() <= kEndedTasksKept) return;
  ended_.erase(ended_order_.front());
  ended_order_.pop_front();
}

}  // namespace lepton::worker
