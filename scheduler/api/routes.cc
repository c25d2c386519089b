// The route table. Handlers: handlers.h. The gateway's rows (:predict, /v2) are added by Api.
#include "scheduler/api/routes.h"

#include "scheduler/api/handlers.h"

namespace lepton::api {
namespace {

const Parameter kCursor{"cursor", "string", "next_cursor of the page before."};
const Parameter kLimit{"limit", "integer", "Items on a page."};
const Parameter kAfter{"after", "integer",
                       "Only what has a higher seq: next_after of the page before."};
const Parameter kFollow{"follow", "boolean", "Server-sent events until the job is over."};
const Parameter kLastEvent{"Last-Event-ID", "string", "Like after; sent by reconnecting clients.",
                           "header"};
const Parameter kIfMatch{"If-Match", "string", "An ETag; 412 if the deployment has changed.",
                         "header"};
const std::vector<Parameter> kPage = {kCursor, kLimit};
const std::vector<Parameter> kFeed = {kAfter, kLimit, kFollow, kLastEvent};

constexpr Scope kNone = Scope::kNone, kRead = Scope::kRead, kSubmit = Scope::kSubmit,
                kAdmin = Scope::kAdmin;

std::vector<ApiRoute> JobRoutes() {
  return {
      {"POST",
       "/v1/jobs",
       kSubmit,
       "jobs",
       "Submit a job.",
       SubmitJob,
       "JobSpec",
       "Job",
       201,
       {{"id", "string", "Chosen by the client: repeating the call is safe."},
        {"dry_run", "boolean", "Check everything and answer the plan; store nothing."},
        {"Idempotency-Key", "string", "The same key gives the first job back.", "header"}},
       "JobOrPlan"},
      {"GET",
       "/v1/jobs",
       kRead,
       "jobs",
       "List jobs, newest first.",
       ListJobs,
       "",
       "JobList",
       200,
       {kCursor,
        kLimit,
        {"state", "string", "QUEUED, RUNNING, ..."},
        {"kind", "string", "train, tune, distill, evaluate or batch"},
        {"label", "string", "key or key=value"}}},
      {"GET",
       "/v1/jobs/{id}",
       kRead,
       "jobs",
       "One job, with its spec.",
       GetJob,
       "",
       "Job",
       200,
       {{"wait", "string", "Wait up to this long (\"30s\", at most 5m) for the job to be over."},
        {"until", "string", "Answer already when the job is in this state."}}},
      {"DELETE", "/v1/jobs/{id}", kSubmit, "jobs", "Cancel a job; its record stays.", CancelJob, "",
       "Job"},
      {"POST", "/v1/jobs/{id}:cancel", kSubmit, "jobs", "Cancel a job.", CancelJob, "", "Job"},
      {"GET", "/v1/jobs/{id}/events", kRead, "jobs", "Every transition of a job.", GetEvents, "",
       "EventFeed", 200, kFeed},
      {"GET", "/v1/jobs/{id}/logs", kRead, "jobs", "Log lines of a job's tasks.", GetLogs, "",
       "LogFeed", 200, kFeed},
      {"GET", "/v1/jobs/{id}/metrics", kRead, "jobs", "Metric points of a job.", GetMetrics, "",
       "MetricFeed", 200, kFeed},
      {"GET", "/v1/jobs/{id}/trials", kRead, "jobs", "Trials of a tune job.", ListTrials, "",
       "TrialList", 200, kPage},
      {"GET", "/v1/jobs/{id}/checkpoints", kRead, "jobs", "Checkpoints kept of a job.",
       ListCheckpoints, "", "CheckpointList", 200, kPage},
      {"GET", "/v1/jobs/{id}/files/{file}", kRead, "jobs",
       "A file of a job's result: manifest.json, weights.safetensors or model.onnx of its model, "
       "or one of "
       "result.files.",
       GetJobFile, "", "application/octet-stream"},
  };
}

std::vector<ApiRoute> DeploymentRoutes() {
  return {
      {"POST",
       "/v1/deployments",
       kSubmit,
       "deployments",
       "Deploy a model.",
       CreateDeployment,
       "DeploymentSpec",
       "Deployment",
       201,
       {},
       "Deployment"},
      {"GET", "/v1/deployments", kRead, "deployments", "List deployments.", ListDeployments, "",
       "DeploymentList", 200, kPage},
      {"GET", "/v1/deployments/{name}", kRead, "deployments", "One deployment.", GetDeployment, "",
       "Deployment"},
      {"PATCH",
       "/v1/deployments/{name}",
       kSubmit,
       "deployments",
       "Change the replicas wanted.",
       PatchDeployment,
       "Scale",
       "Deployment",
       200,
       {kIfMatch}},
      {"POST",
       "/v1/deployments/{name}:scale",
       kSubmit,
       "deployments",
       "Change the replicas wanted.",
       ScaleDeployment,
       "Scale",
       "Deployment",
       200,
       {kIfMatch}},
      {"DELETE",
       "/v1/deployments/{name}",
       kSubmit,
       "deployments",
       "Remove a deployment.",
       DeleteDeployment,
       "",
       "Deletion",
       202,
       {kIfMatch}},
      {"GET", "/v1/deployments/{name}/replicas", kRead, "deployments", "Its replicas.",
       ListReplicas, "", "ReplicaList", 200, kPage},
  };
}

std::vector<ApiRoute> AssetRoutes() {
  return {
      {"GET", "/v1/models", kRead, "models", "List models.", ListModels, "", "ModelList", 200,
       kPage},
      {"GET", "/v1/models/{name}", kRead, "models", "One model.", GetModel, "", "Model"},
      {"GET", "/v1/models/{name}/versions", kRead, "models", "Its versions.", ListModelVersions, "",
       "ModelVersionList", 200, kPage},
      {"GET", "/v1/models/{name}/versions/{version}", kRead, "models",
       "One version, by number or alias.", GetModelVersion, "", "ModelVersion"},
      {"GET", "/v1/models/{name}/versions/{version}/lineage", kRead, "models",
       "What a version was made from.", GetModelLineage, "", "Lineage"},
      {"GET", "/v1/models/{name}/versions/{version}/files/{file}", kRead, "models",
       "manifest.json, weights.safetensors, tokenizer.json of a model of texts, what else the "
       "manifest "
       "names, or model.onnx.",
       GetModelFile, "", "application/octet-stream"},
      {"POST",
       "/v1/models/{name}/versions",
       kSubmit,
       "models",
       "An ONNX file, or a folder (Hugging Face's, or one that a run left) as a tar archive, as a "
       "model's next version: the "
       "bytes themselves, or a JSON body with the uri of the file or folder.",
       CreateModelVersion,
       kFileBody,
       "ModelVersion",
       201,
       {},
       "ModelVersion",
       "ModelSource"},
      {"PUT", "/v1/models/{name}/aliases/{alias}", kSubmit, "models",
       "Point an alias at a version.", PutModelAlias, "AliasTarget", "Model"},
      {"POST",
       "/v1/datasets/{name}",
       kSubmit,
       "datasets",
       "A dataset's next version: a file or an archive of pictures as the body, or a uri.",
       CreateDataset,
       kFileBody,
       "DatasetVersion",
       201,
       {{"format", "string",
         "auto, csv, jsonl, text, tokens or images; by default as the Content-Type says, else by "
         "filename, else by the first bytes."},
        {"filename", "string", "Whose suffix tells the format."},
        {"token_type", "string", "Of raw token ids: u16 or u32."},
        {"uri", "string",
         "file:///... of a file, or of a folder of pictures, within the coordinator's file roots; "
         "in place of a body."}},
       "DatasetVersion",
       "",
       /*body_optional=*/true},
      {"GET", "/v1/imports", kRead, "datasets", "Imports that go on, with how far they are.",
       ListImports, "", "ImportList"},
      {"GET", "/v1/datasets", kRead, "datasets", "List datasets.", ListDatasets, "", "DatasetList",
       200, kPage},
      {"GET", "/v1/datasets/{name}", kRead, "datasets", "One dataset.", GetDataset, "", "Dataset"},
      {"GET", "/v1/datasets/{name}/versions", kRead, "datasets", "Its versions.",
       ListDatasetVersions, "", "DatasetVersionList", 200, kPage},
      {"GET", "/v1/datasets/{name}/versions/{version}", kRead, "datasets", "One version.",
       GetDatasetVersion, "", "DatasetVersion"},
      {"GET", "/v1/datasets/{name}/versions/{version}/profile", kRead, "datasets",
       "Statistics of each column.", GetDatasetProfile, "", "DatasetProfile"},
  };
}

std::vector<ApiRoute> ClusterRoutes() {
  return {
      {"GET", "/v1/cluster", kRead, "cluster", "Workers, slots and jobs in numbers.", GetCluster,
       "", "Cluster"},
      {"GET",
       "/v1/workers",
       kRead,
       "cluster",
       "List workers.",
       ListWorkers,
       "",
       "WorkerList",
       200,
       {kCursor, kLimit, {"state", "string", "UP, DRAINING or LOST"}}},
      {"GET", "/v1/workers/{id}", kRead, "cluster", "One worker.", GetWorker, "", "Worker"},
      {"POST", "/v1/workers/{id}:drain", kAdmin, "cluster",
       "Give a worker no new work and move away what runs there.", DrainWorker, "", "Worker"},
      {"POST", "/v1/keys", kAdmin, "keys", "Make an API key; it is shown this once.", CreateKey,
       "NewKey", "Key", 201},
      {"GET", "/v1/keys", kAdmin, "keys", "List API keys, without their secrets.", ListKeys, "",
       "KeyList", 200, kPage},
      {"DELETE", "/v1/keys/{id}", kAdmin, "keys", "Revoke an API key.", RevokeKey},
  };
}

std::vector<ApiRoute> SystemRoutes() {
  return {
      {"GET", "/healthz", kNone, "system", "The process is alive.", GetHealth, "",
       "application/json"},
      {"GET", "/readyz", kNone, "system", "The scheduler answers.", GetReady, "",
       "application/json"},
      {"GET", "/metrics", kRead, "system", "Metrics in Prometheus's text format.",
       GetProcessMetrics, "", "text/plain"},
      {"GET", "/openapi.json", kNone, "system", "This description.", GetOpenApi, "",
       "application/json"},
      // Static and without data: it asks for the key that its calls need.
      {"GET", "/", kNone, "system", "The cluster as a page.", GetPage, "", "text/html"},
      {"GET", "/v2/health/live", kNone, "inference", "The server is alive.", GetInferenceHealth, "",
       "application/json"},
      {"GET", "/v2/health/ready", kNone, "inference", "The server takes requests.",
       GetInferenceHealth, "", "application/json"},
  };
}

}  // namespace

const std::vector<ApiRoute>& Routes() {
  static const std::vector<ApiRoute>* routes = [] {
    auto* all = new std::vector<ApiRoute>();
    for (auto&& part :
         {JobRoutes(), DeploymentRoutes(), AssetRoutes(), ClusterRoutes(), SystemRoutes()}) {
      all->insert(all->end(), part.begin(), part.end());
    }
    return all;
  }();
  return *routes;
}

}  // namespace lepton::api
