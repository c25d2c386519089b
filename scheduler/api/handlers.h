// All handlers of the route table. Each answers its responder exactly once.
#pragma once

#include "runtime/http/http.h"
#include "scheduler/api/api.h"

namespace lepton::api {

// jobs.cc
void SubmitJob(Api& api, http::Request request, http::ResponderPtr responder);
void ListJobs(Api& api, http::Request request, http::ResponderPtr responder);
void GetJob(Api& api, http::Request request, http::ResponderPtr responder);
void CancelJob(Api& api, http::Request request, http::ResponderPtr responder);
void ListTrials(Api& api, http::Request request, http::ResponderPtr responder);
void ListCheckpoints(Api& api, http::Request request, http::ResponderPtr responder);
// job_feeds.cc
void GetEvents(Api& api, http::Request request, http::ResponderPtr responder);
void GetLogs(Api& api, http::Request request, http::ResponderPtr responder);
void GetMetrics(Api& api, http::Request request, http::ResponderPtr responder);
// deployments.cc
void CreateDeployment(Api& api, http::Request request, http::ResponderPtr responder);
void ListDeployments(Api& api, http::Request request, http::ResponderPtr responder);
void GetDeployment(Api& api, http::Request request, http::ResponderPtr responder);
void PatchDeployment(Api& api, http::Request request, http::ResponderPtr responder);
void ScaleDeployment(Api& api, http::Request request, http::ResponderPtr responder);
void DeleteDeployment(Api& api, http::Request request, http::ResponderPtr responder);
void ListReplicas(Api& api, http::Request request, http::ResponderPtr responder);
// models.cc
void ListModels(Api& api, http::Request request, http::ResponderPtr responder);
void GetModel(Api& api, http::Request request, http::ResponderPtr responder);
void ListModelVersions(Api& api, http::Request request, http::ResponderPtr responder);
void GetModelVersion(Api& api, http::Request request, http::ResponderPtr responder);
void GetModelLineage(Api& api, http::Request request, http::ResponderPtr responder);
void GetJobFile(Api& api, http::Request request, http::ResponderPtr responder);
void GetModelFile(Api& api, http::Request request, http::ResponderPtr responder);
void CreateModelVersion(Api& api, http::Request request, http::ResponderPtr responder);
void PutModelAlias(Api& api, http::Request request, http::ResponderPtr responder);
// datasets.cc
void CreateDataset(Api& api, http::Request request, http::ResponderPtr responder);
void ListDatasets(Api& api, http::Request request, http::ResponderPtr responder);
void GetDataset(Api& api, http::Request request, http::ResponderPtr responder);
void ListDatasetVersions(Api& api, http::Request request, http::ResponderPtr responder);
void GetDatasetVersion(Api& api, http::Request request, http::ResponderPtr responder);
void GetDatasetProfile(Api& api, http::Request request, http::ResponderPtr responder);
void ListImports(Api& api, http::Request request, http::ResponderPtr responder);
// workers.cc
void ListWorkers(Api& api, http::Request request, http::ResponderPtr responder);
void GetWorker(Api& api, http::Request request, http::ResponderPtr responder);
void DrainWorker(Api& api, http::Request request, http::ResponderPtr responder);
void GetCluster(Api& api, http::Request request, http::ResponderPtr responder);
// keys.cc
void CreateKey(Api& api, http::Request request, http::ResponderPtr responder);
void ListKeys(Api& api, http::Request request, http::ResponderPtr responder);
void RevokeKey(Api& api, http::Request request, http::ResponderPtr responder);
// system.cc
void GetHealth(Api& api, http::Request request, http::ResponderPtr responder);
void GetReady(Api& api, http::Request request, http::ResponderPtr responder);
void GetInferenceHealth(Api& api, http::Request request, http::ResponderPtr responder);
void GetProcessMetrics(Api& api, http::Request request, http::ResponderPtr responder);
void GetOpenApi(Api& api, http::Request request, http::ResponderPtr responder);
void GetPage(Api& api, http::Request request, http::ResponderPtr responder);

}  // namespace lepton::api
