#include "scheduler/api/views.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/hash.h"
#include "scheduler/core/best_trial.h"
#include "scheduler/core/job_state.h"

namespace lepton::api {
namespace {

using nlohmann::json;

template <typename Map>
json ToObject(const Map& map) {
  json object = json::object();
  for (const auto& [key, value] : map) object[key] = value;
  return object;
}

json ProgressView(const scheduler::Progress& progress) {
  json view = {{"step", progress.step()},   {"total_steps", progress.total_steps()},
               {"epoch", progress.epoch()}, {"samples_per_second", progress.samples_per_second()},
               {"phase", progress.phase()}, {"phase_done", progress.phase_done()}};
  if (progress.has_samples()) {
    view["samples"] = progress.samples().rows();
    // As text: 64 bits are more than a JSON reader's number may hold.
    view["sample_ids"] = std::to_string(progress.samples().ids());
  }
  return view;
}

json TaskView(const scheduler::Task& task) {
  return {{"task_id", task.id()},
          {"rank", task.rank()},
          {"worker_id", task.worker_id()},
          {"host", task.host()},
          {"pid", task.pid()},
          {"state", scheduler::TaskStateName(task.state())}};
}

// Those that the search space names; the values are JSON texts.
json TrialValues(const scheduler::Trial& trial) {
  json values = json::object();
  for (const auto& [path, text] : trial.values()) {
    json value = json::parse(text, nullptr, false);
    values[path] = value.is_discarded() ? json(text) : std::move(value);
  }
  return values;
}

json FileNames(const scheduler::JobResult& result) {
  std::vector<std::string> names;
  for (const auto& [name, digest] : result.files()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

json ResultView(const scheduler::Job& job) {
  return {{"model", job.model_name()},
          {"version", job.model_version()},
          {"manifest", job.result().model_manifest()},
          {"weights_sha256", ""},
          {"parameters", 0},
          {"steps", job.result().steps()},
          {"files", FileNames(job.result())},
          {"metrics", ToObject(job.result().metrics())}};
}

json RecoveriesView(const scheduler::Job& job) {
  json recoveries = json::array();
  for (const scheduler::Recovery& one : job.recoveries()) {
    recoveries.push_back({{"epoch", one.epoch()},
                          {"reason_code", one.reason_code()},
                          {"cause", one.cause()},
                          {"time_ms", one.fault_ms()},
                          {"step", one.step()},
                          {"ranks", one.ranks()},
                          {"detect_ms", one.detect()},
                          {"agree_ms", one.agree()},
                          {"rebuild_ms", one.rebuild()},
                          {"restore_ms", one.restore()},
                          {"first_commit_ms", one.first_commit()},
                          {"total_ms", one.total()},
                          {"restored_bytes", one.restored_bytes()},
                          {"restart", one.restart()}});
  }
  return recoveries;
}

// The group that trains now, or that trained last.
json GroupView(const scheduler::State& state, const scheduler::Job& job) {
  const auto gangs = state.gangs_of_job.find(JobId(job.id()));
  const scheduler::Gang* gang =
      gangs == state.gangs_of_job.end() ? nullptr : state.FindGang(*gangs->second.begin());
  if (gang == nullptr) return {{"ranks", job.last_ranks()}, {"epoch", 0}, {"regrouping", false}};
  const int ranks = gang->elastic() ? gang->members_size() : gang->tasks_size();
  return {{"ranks", ranks},
          {"epoch", gang->elastic() ? gang->epoch() : 1},
          {"regrouping", gang->forming() || gang->has_recovery()}};
}

// How far a batch prediction is: rows, shards, and what its shards went through.
json ShardsView(const scheduler::Job& job) {
  const scheduler::Shards& shards = job.shards();
  const double rate = job.progress().samples_per_second();
  const int64_t left = shards.rows() - shards.rows_done();
  const int64_t count =
      shards.shard_rows() > 0 ? (shards.rows() + shards.shard_rows() - 1) / shards.shard_rows() : 0;
  json view = {{"rows", shards.rows()},
               {"rows_done", shards.rows_done()},
               {"shard_rows", shards.shard_rows()},
               {"count", count},
               {"done", shards.done()},
               {"taken_over", shards.taken_over()},
               {"doubled", shards.doubled()},
               {"done_twice", shards.done_twice()},
               {"differing", shards.differing()}};
  if (scheduler::IsTerminal(job.state())) return view;
  view["rows_per_second"] = rate;
  if (rate > 0) view["eta_seconds"] = static_cast<double>(left) / rate;
  return view;
}

// How far a search is: trials that are over, and the best score so far.
json SearchView(const scheduler::Job& job, const json& spec) {
  const json search = spec.value("search", json::object());
  const bool most = search.value("mode", "max") == "max";
  int done = 0, failed = 0, running = 0;
  for (const scheduler::Trial& trial : job.trials()) {
    done += trial.state() == scheduler::TRIAL_DONE || trial.state() == scheduler::TRIAL_FAILED;
    failed += trial.state() == scheduler::TRIAL_FAILED;
    running += trial.state() == scheduler::TRIAL_RUNNING;
  }
  // Behind the end the others' models are gone.
  const int best =
      scheduler::IsTerminal(job.state()) ? job.best_trial() : scheduler::BestTrial(job, most);
  json view = {{"metric", search.value("metric", "")},
               {"trials", std::max(search.value("trials", 0), job.trials_size())},
               {"started", job.trials_size()},
               {"running", running},
               {"done", done},
               {"failed", failed}};
  if (best >= 0) {
    view["best_trial"] = best;
    view["best_score"] = job.trials(best).value();
  }
  return view;
}

json LabelsOf(const json& spec) {
  return spec.value("labels", json::object());
}

std::string ReasonOf(const scheduler::Job& job, const std::map<JobId, std::string>& waiting) {
  if (const auto found = waiting.find(JobId(job.id())); found != waiting.end()) {
    return found->second;
  }
  return job.error().empty() ? job.cause() : job.error();
}

}  // namespace

json JobView(const scheduler::State& state, const scheduler::Job& job,
             const std::map<JobId, std::string>& waiting, bool full) {
  json spec = json::parse(job.spec_json(), nullptr, false);
  if (!spec.is_object()) spec = json::object();
  json tasks = json::array();
  for (const scheduler::Task* task : state.TasksOf(JobId(job.id())))
    tasks.push_back(TaskView(*task));
  // What a finished job achieved is its result's; before that, what it last reported.
  const bool has_result = job.has_result();
  json metrics = ToObject(job.progress().metrics());
  if (has_result) {
    for (const auto& [key, value] : job.result().metrics()) metrics[key] = value;
  }
  json view = {{"id", job.id()},
               {"name", job.name()},
               {"kind", job.kind()},
               {"state", scheduler::JobStateName(job.state())},
               {"reason_code", job.reason_code()},
               {"reason", ReasonOf(job, waiting)},
               {"error_code", job.error_code()},
               {"error", job.error()},
               {"queue", job.queue()},
               {"priority", job.priority()},
               {"labels", LabelsOf(spec)},
               {"attempt", job.attempt()},
               {"restarts", job.worker_restarts() + job.task_restarts()},
               {"worker_restarts", job.worker_restarts()},
               {"task_restarts", job.task_restarts()},
               {"recovery_count", job.recovery_count()},
               {"group", GroupView(state, job)},
               {"submitted_ms", job.submitted_ms()},
               {"started_ms", job.started_ms()},
               {"finished_ms", job.finished_ms()},
               {"progress", ProgressView(job.progress())},
               {"metrics", std::move(metrics)},
               {"tasks", std::move(tasks)},
               {"seq", job.events().empty() ? job.submit_seq() : job.events().rbegin()->seq()}};
  if (has_result) view["result"] = ResultView(job);
  if (job.best_trial() >= 0 && job.trials_size() > job.best_trial()) {
    view["best_trial"] = job.best_trial();
  }
  if (job.kind() == "tune") {
    view["search"] = SearchView(job, spec);
    // A trial is its step: those of the trials are not to be added up.
    view["progress"]["step"] = view["search"]["done"];
    view["progress"]["total_steps"] = view["search"]["trials"];
  }
  if (job.shards().rows() > 0) view["shards"] = ShardsView(job);
  if (job.recoveries_size() > 0) view["recoveries"] = RecoveriesView(job);
  if (full) view["spec"] = std::move(spec);
  return view;
}

json EventView(const scheduler::Event& event) {
  return {{"seq", event.seq()},
          {"time_ms", event.wall_ms()},
          {"job_id", event.job_id()},
          {"type", event.type()},
          {"from", event.from()},
          {"state", event.to()},
          {"reason_code", event.reason_code()},
          {"message", event.cause()},
          {"attempt", event.attempt()},
          {"trial", event.trial()}};
}

json TrialView(const scheduler::Trial& trial) {
  json metrics = ToObject(trial.progress().metrics());
  for (const auto& [key, value] : trial.result().metrics()) metrics[key] = value;
  return {{"id", trial.index()},
          {"state", scheduler::TrialStateName(trial.state())},
          {"values", TrialValues(trial)},
          {"rung", trial.rung()},
          {"budget", trial.budget()},
          {"step", trial.progress().step()},
          {"attempt", trial.attempt()},
          {"metrics", std::move(metrics)},
          {"score", trial.has_value() ? json(trial.value()) : json()},
          {"task_id", ""},
          {"error", trial.error()}};
}

json CheckpointView(const scheduler::Checkpoint& checkpoint) {
  return {{"step", checkpoint.step()},
          {"manifest", checkpoint.manifest()},
          {"metrics", ToObject(checkpoint.metrics())},
          {"time_ms", checkpoint.wall_ms()},
          {"attempt", checkpoint.attempt()}};
}

json WorkerView(const scheduler::State& state, const scheduler::Worker& worker,
                const std::optional<WorkerVitals>& vitals) {
  const auto& hello = worker.hello();
  const auto used = state.used_slots.find(WorkerId(worker.id()));
  json tasks = json::array();
  if (const auto found = state.tasks_of_worker.find(WorkerId(worker.id()));
      found != state.tasks_of_worker.end()) {
    for (const auto& task : found->second) tasks.push_back(task);
  }
  const WorkerVitals seen = vitals.value_or(WorkerVitals{});
  return {{"id", worker.id()},
          {"host", hello.host()},
          {"state", scheduler::WorkerStateName(worker.state())},
          {"reason", worker.reason()},
          {"since_ms", worker.since_ms()},
          {"slots", hello.slots()},
          {"slots_used", used == state.used_slots.end() ? 0 : used->second},
          {"cores", hello.cores()},
          {"memory_bytes", hello.memory_bytes()},
          {"device", hello.device()},
          {"bf16_sums", hello.bf16_sums()},
          {"gpus", hello.gpus()},
          {"launcher", hello.launcher()},
          {"launcher_rank", hello.launcher_rank()},
          {"pid", hello.pid()},
          {"load_average", seen.load_average},
          {"memory_used_bytes", seen.memory_used_bytes},
          {"last_seen_ms", seen.last_seen_ms},
          {"tasks", std::move(tasks)},
          {"labels", ToObject(hello.labels())}};
}

json ClusterView(const scheduler::State& state, int64_t uptime_ms) {
  std::map<std::string, int> workers, jobs;
  uint64_t used = 0, total = 0;
  for (const auto& [id, worker] : state.workers) {
    ++workers[std::string(scheduler::WorkerStateName(worker.state()))];
    if (worker.state() == scheduler::WORKER_LOST) continue;
    total += worker.hello().slots();
    if (const auto found = state.used_slots.find(id); found != state.used_slots.end()) {
      used += found->second;
    }
  }
  for (const auto& [id, job] : state.jobs) {
    ++jobs[std::string(scheduler::JobStateName(job.state()))];
  }
  return {{"workers", ToObject(workers)}, {"slots", {{"used", used}, {"total", total}}},
          {"jobs", ToObject(jobs)},       {"deployments", state.deployments.size()},
          {"version", LEPTON_VERSION},    {"uptime_ms", uptime_ms}};
}

}  // namespace lepton::api
