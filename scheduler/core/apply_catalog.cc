// What becomes of workers, models, datasets and deployments.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

Status Applier::Joined(const Worker& joined) {
  Worker& worker = state_.workers[WorkerId(joined.id())];
  Event event;
  event.set_type("worker");
  event.set_subject(joined.id());
  event.set_from(std::string(WorkerStateName(worker.state())));
  event.set_to(std::string(WorkerStateName(joined.state())));
  event.set_reason_code("JOINED");
  event.set_trial(-1);
  worker = joined;
  worker.set_since_ms(record_.wall_ms());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Moved(const WorkerMoved& moved) {
  auto it = state_.workers.find(WorkerId(moved.worker_id()));
  if (it == state_.workers.end()) return NotThere("worker", moved.worker_id());
  Event event;
  event.set_type("worker");
  event.set_subject(moved.worker_id());
  event.set_from(std::string(WorkerStateName(it->second.state())));
  event.set_to(std::string(WorkerStateName(moved.to())));
  event.set_reason_code(moved.to() == WORKER_LOST ? "LOST" : "DRAIN");
  event.set_cause(moved.reason());
  event.set_trial(-1);
  it->second.set_state(moved.to());
  it->second.set_reason(moved.reason());
  it->second.set_since_ms(record_.wall_ms());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Forgotten(const WorkerForgotten& forgotten) {
  if (state_.tasks_of_worker.contains(WorkerId(forgotten.worker_id()))) {
    return DataLoss(
        fmt::format("record {}: worker {} has tasks", record_.seq(), forgotten.worker_id()));
  }
  state_.workers.erase(WorkerId(forgotten.worker_id()));
  return Status::Ok();
}

// ---- models, datasets, deployments ------------------------------------------------------------

Status Applier::Registered(const ModelRegistered& registered) {
  Model& model = state_.models[registered.name()];
  model.set_name(registered.name());
  if (registered.version().version() != static_cast<uint32_t>(model.versions_size()) + 1) {
    return DataLoss(fmt::format("record {}: model {} has a gap", record_.seq(), model.name()));
  }
  ModelVersion& version = *model.add_versions();
  version = registered.version();
  version.set_created_ms(record_.wall_ms());
  AddRefs(state_, version);
  if (Job* job = FindJob(version.job_id()); job != nullptr) {
    job->set_model_name(model.name());
    job->set_model_version(version.version());
  }
  return Status::Ok();
}

Status Applier::Set(const AliasSet& set) {
  auto it = state_.models.find(set.name());
  if (it == state_.models.end()) return NotThere("model", set.name());
  (*it->second.mutable_aliases())[set.alias()] = set.version();
  return Status::Ok();
}

Status Applier::Registered(const DatasetRegistered& registered) {
  Dataset& dataset = state_.datasets[registered.name()];
  dataset.set_name(registered.name());
  if (registered.version().version() != static_cast<uint32_t>(dataset.versions_size()) + 1) {
    return DataLoss(fmt::format("record {}: dataset {} has a gap", record_.seq(), dataset.name()));
  }
  DatasetVersion& version = *dataset.add_versions();
  version = registered.version();
  version.set_created_ms(record_.wall_ms());
  AddRefs(state_, version);
  return Status::Ok();
}

Status Applier::Created(const Deployment& created) {
  if (state_.deployments.contains(created.name())) {
    return DataLoss(fmt::format("record {}: deployment '{}' twice", record_.seq(), created.name()));
  }
  Deployment& deployment = state_.deployments[created.name()];
  deployment = created;
  deployment.set_state(DEPLOYMENT_ACTIVE);
  deployment.set_created_ms(record_.wall_ms());
  deployment.set_next_replica(state_.next_replica);
  AddRefs(state_, deployment);
  Event event;
  event.set_type("deployment");
  event.set_subject(created.name());
  event.set_to(std::string(DeploymentStateName(DEPLOYMENT_ACTIVE)));
  event.set_reason_code("CREATED");
  event.set_trial(-1);
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Changed(const DeploymentChanged& changed) {
  auto it = state_.deployments.find(changed.name());
  if (it == state_.deployments.end()) return NotThere("deployment", changed.name());
  Deployment& deployment = it->second;
  Event event;
  event.set_type("deployment");
  event.set_subject(changed.name());
  event.set_from(std::string(DeploymentStateName(deployment.state())));
  event.set_to(std::string(DeploymentStateName(changed.state())));
  event.set_reason_code(changed.state() == DEPLOYMENT_DELETING        ? "DELETED"
                        : changed.restarts() != deployment.restarts() ? "REPLICA_FAILED"
                                                                      : "SCALED");
  event.set_cause(changed.error());
  event.set_trial(-1);
  deployment.set_state(changed.state());
  deployment.set_replicas(changed.replicas());
  deployment.set_restarts(changed.restarts());
  deployment.set_failures_in_row(changed.failures_in_row());
  deployment.set_retry_at_ms(changed.retry_at_ms());
  deployment.set_error(changed.error());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Removed(const DeploymentRemoved& removed) {
  auto it = state_.deployments.find(removed.name());
  if (it == state_.deployments.end()) return NotThere("deployment", removed.name());
  DropRefs(state_, it->second);
  state_.next_replica = std::max(state_.next_replica, it->second.next_replica());
  state_.deployments.erase(it);
  Event event;
  event.set_type("deployment");
  event.set_subject(removed.name());
  event.set_from(std::string(DeploymentStateName(DEPLOYMENT_DELETING)));
  event.set_reason_code("REMOVED");
  event.set_trial(-1);
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

}  // namespace lepton::scheduler
