// What the API takes and gives, as JSON Schemas for /openapi.json. A view in views.cc and its
// schema here change together; tests/scheduler/api checks that every view has the fields listed.

#include "runtime/base/json.h"
#include "runtime/spec/job_spec.h"
#include "scheduler/api/openapi.h"

namespace lepton::api {
namespace {

using nlohmann::json;

const json kString = {{"type", "string"}};
const json kInteger = {{"type", "integer"}};
const json kNumber = {{"type", "number"}};
const json kAny = json::object();
const json kNumbers = {{"type", "object"}, {"additionalProperties", {{"type", "number"}}}};
const json kStrings = {{"type", "object"}, {"additionalProperties", {{"type", "string"}}}};
const json kIntegers = {{"type", "object"}, {"additionalProperties", {{"type", "integer"}}}};

json Array(json items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}

json Ref(const std::string& name) {
  return {{"$ref", "#/components/schemas/" + name}};
}

// `required` lists the first `required_count` fields; all of them by default.
using Fields = std::vector<std::pair<std::string, json>>;
json Object(const Fields& fields, size_t required_count = SIZE_MAX) {
  json properties = json::object(), required = json::array();
  for (size_t i = 0; i < fields.size(); ++i) {
    properties[fields[i].first] = fields[i].second;
    if (i < required_count) required.push_back(fields[i].first);
  }
  return {{"type", "object"}, {"properties", properties}, {"required", required}};
}

json List(const std::string& item) {
  return Object({{"items", Array(Ref(item))}, {"next_cursor", kString}});
}

json Feed(const std::string& item) {
  return Object({{"items", Array(Ref(item))}, {"next_after", kInteger}});
}

void AddJobs(json& all) {
  all["JobSpec"] = spec::JobSpecSchema();
  all["JobResult"] = Object({{"model", kString},
                             {"version", kInteger},
                             {"manifest", kString},
                             {"weights_sha256", kString},
                             {"parameters", kInteger},
                             {"steps", kInteger},
                             {"metrics", kNumbers},
                             {"files", Array(kString)}});
  const json progress = Object({{"step", kInteger},
                                {"total_steps", kInteger},
                                {"epoch", kNumber},
                                {"samples_per_second", kNumber},
                                {"samples", kInteger},
                                {"sample_ids", kString},
                                {"phase", kString},
                                {"phase_done", kNumber}});
  const json group =
      Object({{"ranks", kInteger}, {"epoch", kInteger}, {"regrouping", {{"type", "boolean"}}}});
  const json shards = Object({{"rows", kInteger},
                              {"rows_done", kInteger},
                              {"shard_rows", kInteger},
                              {"count", kInteger},
                              {"done", kInteger},
                              {"taken_over", kInteger},
                              {"doubled", kInteger},
                              {"done_twice", kInteger},
                              {"differing", kInteger},
                              {"rows_per_second", kNumber},
                              {"eta_seconds", kNumber}},
                             9);
  const json search = Object({{"metric", kString},
                              {"trials", kInteger},
                              {"started", kInteger},
                              {"running", kInteger},
                              {"done", kInteger},
                              {"failed", kInteger},
                              {"best_trial", kInteger},
                              {"best_score", kNumber}},
                             6);
  all["Job"] = Object({{"id", kString},
                       {"name", kString},
                       {"kind", kString},
                       {"state", kString},
                       {"reason_code", kString},
                       {"reason", kString},
                       {"queue", kString},
                       {"priority", kInteger},
                       {"labels", kStrings},
                       {"attempt", kInteger},
                       {"restarts", kInteger},
                       {"recovery_count", kInteger},
                       {"group", group},
                       {"submitted_ms", kInteger},
                       {"started_ms", kInteger},
                       {"finished_ms", kInteger},
                       {"progress", progress},
                       {"metrics", kNumbers},
                       {"tasks", Array(Ref("Task"))},
                       {"seq", kInteger},
                       {"result", Ref("JobResult")},
                       {"spec", Ref("JobSpec")},
                       {"recoveries", Array(Ref("Recovery"))},
                       {"search", search},
                       {"shards", shards},
                       {"awaits_launcher", {{"type", "boolean"}}}},
                      20);
  all["Plan"] = Object({{"spec", Ref("JobSpec")}, {"plan", {{"type", "object"}}}});
  all["JobOrPlan"] = {{"description", "The job; with dry_run the plan."},
                      {"anyOf", json::array({Ref("Job"), Ref("Plan")})}};
  all["Recovery"] = Object({{"epoch", kInteger},
                            {"reason_code", kString},
                            {"cause", kString},
                            {"time_ms", kInteger},
                            {"step", kInteger},
                            {"ranks", kInteger},
                            {"detect_ms", kNumber},
                            {"agree_ms", kNumber},
                            {"rebuild_ms", kNumber},
                            {"restore_ms", kNumber},
                            {"first_commit_ms", kNumber},
                            {"total_ms", kNumber},
                            {"restored_bytes", kInteger},
                            {"restart", {{"type", "boolean"}}}});
  all["JobList"] = List("Job");
  all["Task"] = Object({{"task_id", kString},
                        {"rank", kInteger},
                        {"worker_id", kString},
                        {"host", kString},
                        {"pid", kInteger},
                        {"state", kString}});
  all["Event"] = Object({{"seq", kInteger},
                         {"time_ms", kInteger},
                         {"job_id", kString},
                         {"type", kString},
                         {"state", kString},
                         {"reason_code", kString},
                         {"message", kString},
                         {"attempt", kInteger}});
  all["EventFeed"] = Feed("Event");
  all["LogLine"] =
      Object({{"seq", kInteger}, {"time_ms", kInteger}, {"task_id", kString}, {"line", kString}});
  all["LogFeed"] = Feed("LogLine");
  all["MetricPoint"] = Object({{"seq", kInteger},
                               {"time_ms", kInteger},
                               {"attempt", kInteger},
                               {"key", kString},
                               {"step", kInteger},
                               {"value", kNumber}});
  all["MetricFeed"] = Feed("MetricPoint");
  all["Trial"] = Object({{"id", kString},
                         {"state", kString},
                         {"values", kAny},
                         {"rung", kInteger},
                         {"step", kInteger},
                         {"metrics", kNumbers},
                         {"score", kAny},
                         {"task_id", kString}});
  all["TrialList"] = List("Trial");
  all["Checkpoint"] = Object({{"step", kInteger}, {"manifest", kString}, {"metrics", kNumbers}});
  all["CheckpointList"] = List("Checkpoint");
}

void AddDeployments(json& all) {
  all["DeploymentSpec"] = spec::DeploymentSpecSchema();
  all["Replica"] = Object(
      {{"task_id", kString}, {"worker_id", kString}, {"state", kString}, {"address", kString}});
  all["ReplicaList"] = List("Replica");
  all["Deployment"] = Object({{"name", kString},
                              {"state", kString},
                              {"model", kString},
                              {"version", kInteger},
                              {"replicas", kInteger},
                              {"ready", kInteger},
                              {"reason", kString},
                              {"spec", Ref("DeploymentSpec")},
                              {"replica_states", Array(Ref("Replica"))},
                              {"etag", kString}});
  all["DeploymentList"] = List("Deployment");
  all["Scale"] = Object({{"replicas", kInteger}});
  all["Deletion"] = Object({{"name", kString}, {"state", kString}});
}

void AddData(json& all) {
  all["Model"] = Object({{"name", kString},
                         {"latest", kInteger},
                         {"versions", Array(kInteger)},
                         {"aliases", kIntegers}});
  all["ModelList"] = List("Model");
  all["ModelVersion"] = Object({{"name", kString},
                                {"version", kInteger},
                                {"manifest", kString},
                                {"weights_sha256", kString},
                                {"parameters", kInteger},
                                {"metrics", kNumbers},
                                {"created_ms", kInteger},
                                {"job_id", kString},
                                {"aliases", Array(kString)},
                                {"lineage", kAny}});
  all["ModelVersionList"] = List("ModelVersion");
  all["Lineage"] = Object({{"name", kString},
                           {"version", kInteger},
                           {"job_id", kString},
                           {"dataset", kString},
                           {"parent", kString},
                           {"teacher", kString}});
  all["ModelSource"] = Object(
      {{"uri",
        {{"type", "string"}, {"description", "file:///... within the coordinator's file roots."}}},
       {"features", Array(kString)},
       {"classes", Array(kString)}},
      1);
  all["AliasTarget"] = Object({{"version", {{"type", "integer"}, {"minimum", 1}}}});
  all["Dataset"] = Object({{"name", kString}, {"latest", kInteger}, {"versions", Array(kInteger)}});
  all["DatasetList"] = List("Dataset");
  const json column = Object(
      {{"name", kString}, {"type", kString}, {"classes", Array(kString)}, {"missing", kInteger}});
  all["DatasetVersion"] = Object({{"name", kString},
                                  {"version", kInteger},
                                  {"manifest", kString},
                                  {"kind", kString},
                                  {"format", kString},
                                  {"rows", kInteger},
                                  {"columns", Array(column)},
                                  {"classes", Array(kString)},
                                  {"created_ms", kInteger}});
  all["DatasetVersionList"] = List("DatasetVersion");
  all["DatasetProfile"] = Object({{"rows", kInteger}, {"columns", Array(kAny)}}, 1);
  all["Import"] = Object({{"subject", kString},
                          {"phase", kString},
                          {"done", kInteger},
                          {"total", kInteger},
                          {"started_ms", kInteger}});
  all["ImportList"] = List("Import");
}

void AddCluster(json& all) {
  all["Worker"] = Object({{"id", kString},
                          {"host", kString},
                          {"state", kString},
                          {"slots", kInteger},
                          {"slots_used", kInteger},
                          {"cores", kInteger},
                          {"memory_bytes", kInteger},
                          {"device", kString},
                          {"bf16_sums", kString},
                          {"gpus", kInteger},
                          {"launcher", kString},
                          {"launcher_rank", kInteger},
                          {"load_average", kNumber},
                          {"memory_used_bytes", kInteger},
                          {"last_seen_ms", kInteger},
                          {"tasks", Array(kString)},
                          {"labels", kStrings}});
  all["WorkerList"] = List("Worker");
  all["Cluster"] = Object({{"workers", kIntegers},
                           {"slots", Object({{"used", kInteger}, {"total", kInteger}})},
                           {"jobs", kIntegers},
                           {"deployments", kInteger},
                           {"version", kString},
                           {"uptime_ms", kInteger}});
  all["NewKey"] =
      Object({{"scopes", Array({{"enum", {"admin", "submit", "predict", "read"}}})},
              {"name", kString},
              {"ttl", {{"type", "string"}, {"description", "\"30d\"; none: for ever"}}}},
             1);
  all["Key"] = Object({{"id", kString},
                       {"name", kString},
                       {"scopes", Array(kString)},
                       {"created_ms", kInteger},
                       {"expires_ms", kInteger},
                       {"key", {{"type", "string"}, {"description", "Shown once, on creation."}}}},
                      5);
  all["KeyList"] = List("Key");
}

}  // namespace

json ComponentSchemas() {
  json all = json::object();
  AddJobs(all);
  AddDeployments(all);
  AddData(all);
  AddCluster(all);
  all["Problem"] = Object({{"type", kString},
                           {"title", kString},
                           {"status", kInteger},
                           {"code", kString},
                           {"detail", kString},
                           {"field", kString}},
                          5);
  return all;
}

}  // namespace lepton::api
