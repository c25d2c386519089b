// State -> JSON: what the API shows. Field lists: README.md; schemas: schemas.cc.
// Threads: the state loop's for what takes a State or a part of one; anywhere for the rest.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "runtime/base/json.h"
#include "scheduler/api/api.h"
#include "scheduler/core/state.h"

namespace lepton::api {

// `waiting`: WaitingReasons(state), computed once for a list. With `full` also the spec.
nlohmann::json JobView(const scheduler::State& state, const scheduler::Job& job,
                       const std::map<JobId, std::string>& waiting, bool full);
// Adds to a job's `result` what only its model's manifest knows. Reads objects: pool threads.
void FillResult(const storage::ObjectStore& objects, nlohmann::json& job);

nlohmann::json EventView(const scheduler::Event& event);
nlohmann::json TrialView(const scheduler::Trial& trial);
nlohmann::json CheckpointView(const scheduler::Checkpoint& checkpoint);
nlohmann::json WorkerView(const scheduler::State& state, const scheduler::Worker& worker,
                          const std::optional<WorkerVitals>& vitals);
nlohmann::json DeploymentView(const scheduler::State& state,
                              const scheduler::Deployment& deployment);
// Changes whenever a PATCH could make a difference: the deployment's wanted state.
std::string DeploymentEtag(const scheduler::Deployment& deployment);

nlohmann::json ModelView(const scheduler::Model& model);
nlohmann::json ModelVersionView(const scheduler::Model& model,
                                const scheduler::ModelVersion& version);
// Adds what the manifest knows. Reads objects: pool threads.
Status FillModelVersion(const storage::ObjectStore& objects, nlohmann::json& version);

nlohmann::json DatasetView(const scheduler::Dataset& dataset);
nlohmann::json DatasetVersionView(const scheduler::Dataset& dataset,
                                  const scheduler::DatasetVersion& version);
Status FillDatasetVersion(const storage::ObjectStore& objects, nlohmann::json& version);

nlohmann::json ClusterView(const scheduler::State& state, int64_t uptime_ms);

}  // namespace lepton::api
