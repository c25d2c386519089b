// Views of deployments, models and datasets.
#include <fmt/format.h>

#include "runtime/base/hash.h"
#include "scheduler/api/views.h"
#include "scheduler/core/job_state.h"
#include "storage/datasets/dataset_manifest.h"
#include "storage/models/model_manifest.h"

namespace lepton::api {
namespace {

using nlohmann::json;

// "digits@3" -> {"digits", 3}
std::pair<std::string, int> SplitVersion(const std::string& reference) {
  const size_t at = reference.rfind('@');
  if (at == std::string::npos) return {reference, 0};
  return {reference.substr(0, at), std::atoi(reference.c_str() + at + 1)};
}

std::string ReplicaState(const scheduler::Task& task) {
  if (task.state() == scheduler::TASK_STARTED && task.ready_port() != 0) return "READY";
  return std::string(scheduler::TaskStateName(task.state()));
}

json ReplicaViews(const scheduler::State& state, const std::string& deployment) {
  json replicas = json::array();
  const auto gangs = state.gangs_of_deployment.find(deployment);
  if (gangs == state.gangs_of_deployment.end()) return replicas;
  for (const std::string& id : gangs->second) {
    const scheduler::Gang* gang = state.FindGang(id);
    if (gang == nullptr) continue;
    for (const auto& task : gang->tasks()) {
      const bool ready = task.ready_port() != 0;
      replicas.push_back(
          {{"task_id", task.id()},
           {"worker_id", task.worker_id()},
           {"state", ReplicaState(task)},
           {"address", ready ? fmt::format("{}:{}", task.ready_host(), task.ready_port()) : ""}});
    }
  }
  return replicas;
}

std::string StateOf(const scheduler::Deployment& deployment, size_t ready) {
  if (deployment.state() == scheduler::DEPLOYMENT_DELETING) return "DELETING";
  if (deployment.replicas() == 0) return "STOPPED";
  if (ready >= deployment.replicas()) return "READY";
  return ready > 0 ? "DEGRADED" : "STARTING";
}

std::vector<std::string> AliasesOf(const scheduler::Model& model, uint32_t version) {
  std::vector<std::string> names;
  for (const auto& [alias, target] : model.aliases()) {
    if (target == version) names.push_back(alias);
  }
  return names;
}

}  // namespace

std::string DeploymentEtag(const scheduler::Deployment& deployment) {
  const std::string wanted =
      fmt::format("{} {} {} {} {}", deployment.name(), deployment.created_ms(), deployment.model(),
                  deployment.replicas(), static_cast<int>(deployment.state()));
  return "\"" + Sha256Hex(wanted).substr(0, 16) + "\"";
}

json DeploymentView(const scheduler::State& state, const scheduler::Deployment& deployment) {
  const auto [model, version] = SplitVersion(deployment.model());
  const size_t ready = state.Routes(deployment.name()).size();
  json spec = json::parse(deployment.spec_json(), nullptr, false);
  return {{"name", deployment.name()},
          {"state", StateOf(deployment, ready)},
          {"model", model},
          {"version", version},
          {"replicas", deployment.replicas()},
          {"ready", ready},
          {"restarts", deployment.restarts()},
          {"reason", scheduler::ReplicasWait(state, deployment)},
          {"error", deployment.error()},
          {"created_ms", deployment.created_ms()},
          {"spec", spec.is_object() ? std::move(spec) : json::object()},
          {"replica_states", ReplicaViews(state, deployment.name())},
          {"etag", DeploymentEtag(deployment)}};
}

json ModelView(const scheduler::Model& model) {
  json versions = json::array();
  for (const auto& version : model.versions()) versions.push_back(version.version());
  json aliases = json::object();
  for (const auto& [alias, version] : model.aliases()) aliases[alias] = version;
  return {{"name", model.name()},
          {"latest", model.versions().empty() ? 0 : model.versions().rbegin()->version()},
          {"versions", std::move(versions)},
          {"aliases", std::move(aliases)}};
}

json ModelVersionView(const scheduler::Model& model, const scheduler::ModelVersion& version) {
  json metrics = json::object();
  for (const auto& [key, value] : version.metrics()) metrics[key] = value;
  return {{"name", model.name()},
          {"version", version.version()},
          {"manifest", version.manifest()},
          {"weights_sha256", ""},
          {"parameters", 0},
          {"metrics", std::move(metrics)},
          {"created_ms", version.created_ms()},
          {"job_id", version.job_id()},
          {"aliases", AliasesOf(model, version.version())},
          {"lineage",
           {{"job_id", version.job_id()},
            {"dataset", version.dataset()},
            {"parent", version.parent()},
            {"teacher", version.teacher()}}}};
}

namespace {

Result<storage::ModelManifest> ReadModelManifest(const storage::ObjectStore& objects,
                                                 const std::string& digest) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(digest));
  return storage::ModelManifestFromJson(bytes);
}

}  // namespace

Status FillModelVersion(const storage::ObjectStore& objects, json& version) {
  LEPTON_ASSIGN_OR_RETURN(const auto manifest,
                          ReadModelManifest(objects, version.value("manifest", "")));
  version["weights_sha256"] = manifest.weights_sha256;
  version["weights"] = manifest.weights;
  version["parameters"] = manifest.parameters;
  version["loss"] = manifest.loss;
  version["steps"] = manifest.steps;
  version["features"] = manifest.feature_names.size();
  version["classes"] = manifest.classes;
  version["label"] = manifest.label_name;
  version["input"] = manifest.input.kind;
  json model = json::parse(manifest.model_spec_json, nullptr, false);
  version["model"] = model.is_object() ? std::move(model) : json::object();
  if (version["metrics"].empty()) {
    for (const auto& [key, value] : manifest.metrics) version["metrics"][key] = value;
  }
  return Status::Ok();
}

void FillResult(const storage::ObjectStore& objects, json& job) {
  const auto result = job.find("result");
  if (result == job.end()) return;
  const std::string digest = result->value("manifest", "");
  if (digest.empty()) return;
  // A job is shown even if its model's manifest cannot be read; the model's own page says why.
  const auto manifest = ReadModelManifest(objects, digest);
  if (!manifest.ok()) return;
  (*result)["weights_sha256"] = manifest->weights_sha256;
  (*result)["parameters"] = manifest->parameters;
}

json DatasetView(const scheduler::Dataset& dataset) {
  json versions = json::array();
  for (const auto& version : dataset.versions()) versions.push_back(version.version());
  return {{"name", dataset.name()},
          {"latest", dataset.versions().empty() ? 0 : dataset.versions().rbegin()->version()},
          {"versions", std::move(versions)}};
}

json DatasetVersionView(const scheduler::Dataset& dataset,
                        const scheduler::DatasetVersion& version) {
  return {{"name", dataset.name()},
          {"version", version.version()},
          {"manifest", version.manifest()},
          {"kind", ""},
          {"format", ""},
          {"rows", version.rows()},
          {"columns", json::array()},
          {"classes", json::array()},
          {"created_ms", version.created_ms()}};
}

Status FillDatasetVersion(const storage::ObjectStore& objects, json& version) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(version.value("manifest", "")));
  LEPTON_ASSIGN_OR_RETURN(const auto manifest, storage::DatasetManifestFromJson(bytes));
  version["kind"] = storage::DatasetKindName(manifest.kind);
  version["format"] = manifest.format;
  version["classes"] = manifest.classes;
  for (const auto& column : manifest.columns) {
    version["columns"].push_back({{"name", column.name},
                                  {"type", storage::ColumnTypeName(column.type)},
                                  {"classes", column.classes},
                                  {"missing", column.missing}});
  }
  return Status::Ok();
}

}  // namespace lepton::api
