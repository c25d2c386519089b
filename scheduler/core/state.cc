#include "scheduler/core/state.h"

#include <fmt/format.h>
#include <glog/logging.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

constexpr uint32_t kSnapshotVersion = 1;

// Maps in key order, so that equal states have equal bytes. Empty for more than 2 GiB, which
// protobuf does not write.
std::string SerializeInOrder(const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  if (!message.SerializeToCodedStream(&coded)) return {};
  coded.Trim();
  return bytes;
}

// "3" as a version of `versions`, which are numbered from 1; 0 if it is none.
template <typename Versions>
uint32_t VersionNumber(const Versions& versions, const std::string& text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return 0;
  return number <= static_cast<uint32_t>(versions.size()) ? number : 0;
}

template <typename Map>
std::string Known(const Map& map) {
  std::string names;
  int count = 0;
  for (const auto& [name, value] : map) {
    if (++count > 8) return names + ", ...";
    names += (names.empty() ? "" : ", ") + name;
  }
  return names.empty() ? "none yet" : names;
}

}  // namespace

State::State() = default;
State::~State() = default;
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;

const Job* State::FindJob(const JobId& id) const {
  auto it = jobs.find(id);
  return it == jobs.end() ? nullptr : &it->second;
}

Status State::NoJob(const JobId& id) const {
  uint64_t number = 0;
  if (NumberOf(id, &number) && number < next_job) {
    return NotFound(fmt::format(
        "no job {}: it has ended and is not kept any more (the coordinator's history.jobs says how "
        "many are), or there never was one of that name",
        id.str()));
  }
  return NotFound(fmt::format("no job {}", id.str()));
}

const Gang* State::FindGang(std::string_view id) const {
  auto it = gangs.find(std::string(id));
  return it == gangs.end() ? nullptr : &it->second;
}

const Gang* State::GangOfTask(const std::string& task_id) const {
  auto it = gang_of_task.find(task_id);
  return it == gang_of_task.end() ? nullptr : FindGang(it->second);
}

const Task* State::FindTask(const std::string& task_id) const {
  const Gang* gang = GangOfTask(task_id);
  if (gang == nullptr) return nullptr;
  for (const Task& task : gang->tasks()) {
    if (task.id() == task_id) return &task;
  }
  return nullptr;
}

std::vector<const Task*> State::TasksOf(const JobId& id) const {
  std::vector<const Task*> tasks;
  if (auto it = gangs_of_job.find(id); it != gangs_of_job.end()) {
    for (const std::string& gang : it->second) {
      for (const Task& task : FindGang(gang)->tasks()) tasks.push_back(&task);
    }
  } else if (const Job* job = FindJob(id)) {
    for (const Task& task : job->last_tasks()) tasks.push_back(&task);
  }
  return tasks;
}

const spec::JobSpec& State::Spec(const JobId& id) const {
  auto it = specs.find(id);
  CHECK(it != specs.end()) << "job " << id << " is not active";
  return *it->second;
}

uint32_t State::FreeSlots(const WorkerId& id) const {
  auto it = workers.find(id);
  if (it == workers.end() || it->second.state() != WORKER_UP) return 0;
  auto used = used_slots.find(id);
  const uint32_t taken = used == used_slots.end() ? 0 : used->second;
  return std::max(it->second.hello().slots(), taken) - taken;
}

bool State::ObjectInUse(const std::string& digest) const {
  return object_refs.contains(digest);
}

Result<State::FoundModel> State::FindModel(std::string_view field,
                                           std::string_view reference) const {
  LEPTON_ASSIGN_OR_RETURN(const spec::Reference parsed, spec::ParseReference(field, reference));
  auto it = models.find(parsed.name);
  if (it == models.end()) {
    return NotFound(
        fmt::format("{}: no model '{}': there is {}", field, parsed.name, Known(models)));
  }
  const Model& model = it->second;
  uint32_t number = model.versions_size();
  if (!parsed.reference.empty()) {
    auto alias = model.aliases().find(parsed.reference);
    number = alias != model.aliases().end() ? alias->second
                                            : VersionNumber(model.versions(), parsed.reference);
  }
  if (number == 0) {
    return NotFound(fmt::format("{}: model '{}' has no version or alias '{}': versions 1 to {}",
                                field, parsed.name, parsed.reference, model.versions_size()));
  }
  return FoundModel{&model, &model.versions(static_cast<int>(number) - 1),
                    fmt::format("{}@{}", parsed.name, number)};
}

Result<State::FoundDataset> State::FindDataset(std::string_view field,
                                               std::string_view reference) const {
  LEPTON_ASSIGN_OR_RETURN(const spec::Reference parsed, spec::ParseReference(field, reference));
  auto it = datasets.find(parsed.name);
  if (it == datasets.end()) {
    return NotFound(
        fmt::format("{}: no dataset '{}': there is {}", field, parsed.name, Known(datasets)));
  }
  const Dataset& dataset = it->second;
  const uint32_t number = parsed.reference.empty()
                              ? dataset.versions_size()
                              : VersionNumber(dataset.versions(), parsed.reference);
  if (number == 0) {
    return NotFound(fmt::format("{}: dataset '{}' has no version '{}': versions 1 to {}", field,
                                parsed.name, parsed.reference, dataset.versions_size()));
  }
  return FoundDataset{&dataset, &dataset.versions(static_cast<int>(number) - 1),
                      fmt::format("{}@{}", parsed.name, number)};
}

std::vector<State::Route> State::Routes(const std::string& deployment) const {
  std::vector<Route> routes;
  auto it = gangs_of_deployment.find(deployment);
  if (it == gangs_of_deployment.end()) return routes;
  for (const std::string& id : it->second) {
    const Gang& gang = *FindGang(id);
    if (gang.state() == GANG_STOPPING) continue;
    for (const Task& task : gang.tasks()) {
      if (!IsAlive(task) || task.ready_port() == 0) continue;
      routes.push_back({task.id(), task.ready_host(), static_cast<uint16_t>(task.ready_port()),
                        WorkerId(task.worker_id())});
    }
  }
  return routes;
}

std::string State::Snapshot() const {
  scheduler::Snapshot snapshot;
  snapshot.set_version(kSnapshotVersion);
  snapshot.set_last_seq(last_seq);
  snapshot.set_last_wall_ms(last_wall_ms);
  snapshot.set_next_job(next_job);
  snapshot.set_next_replica(next_replica);
  for (const auto& [id, job] : jobs) *snapshot.add_jobs() = job;
  for (const auto& [id, gang] : gangs) *snapshot.add_gangs() = gang;
  for (const auto& [id, worker] : workers) *snapshot.add_workers() = worker;
  for (const auto& [name, model] : models) *snapshot.add_models() = model;
  for (const auto& [name, dataset] : datasets) *snapshot.add_datasets() = dataset;
  for (const auto& [name, deployment] : deployments) *snapshot.add_deployments() = deployment;
  return SerializeInOrder(snapshot);
}

Result<State> State::Restore(std::string_view bytes) {
  scheduler::Snapshot snapshot;
  if (!snapshot.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DataLoss("scheduler snapshot: not readable");
  }
  if (snapshot.version() != kSnapshotVersion) {
    return FailedPrecondition(fmt::format("scheduler snapshot: version {}, this program knows {}",
                                          snapshot.version(), kSnapshotVersion));
  }
  State state;
  state.last_seq = snapshot.last_seq();
  state.last_wall_ms = snapshot.last_wall_ms();
  state.next_job = snapshot.next_job();
  state.next_replica = snapshot.next_replica();
  for (Job& job : *snapshot.mutable_jobs()) {
    const JobId id(job.id());
    state.jobs[id] = std::move(job);
  }
  for (Gang& gang : *snapshot.mutable_gangs()) {
    const std::string id = gang.id();
    state.gangs[id] = std::move(gang);
  }
  for (Worker& worker : *snapshot.mutable_workers()) {
    const WorkerId id(worker.id());
    state.workers[id] = std::move(worker);
  }
  for (Model& model : *snapshot.mutable_models()) {
    const std::string name = model.name();
    state.models[name] = std::move(model);
  }
  for (Dataset& dataset : *snapshot.mutable_datasets()) {
    const std::string name = dataset.name();
    state.datasets[name] = std::move(dataset);
  }
  for (Deployment& deployment : *snapshot.mutable_deployments()) {
    const std::string name = deployment.name();
    state.deployments[name] = std::move(deployment);
  }
  LEPTON_RETURN_IF_ERROR(IndexAll(state));
  return state;
}

}  // namespace lepton::scheduler
