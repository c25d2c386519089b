#include "worker/infer/infer_task.h"

#include <glog/logging.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "worker/infer/replica_server.h"

namespace lepton::worker {
namespace {

constexpr Duration kStopPoll = std::chrono::milliseconds(10);
constexpr Duration kDefaultGrace = std::chrono::seconds(10);

Result<ReplicaOptions> MakeOptions(const wire::StartTask& start) {
  const nlohmann::json document =
      nlohmann::json::parse(start.spec_json(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return InvalidArgument("spec: not JSON");
  LEPTON_ASSIGN_OR_RETURN(const spec::DeploymentSpec spec, spec::DeploymentSpecFromJson(document));
  LEPTON_ASSIGN_OR_RETURN(const spec::Reference model, spec::ParseReference("model", spec.model));
  ReplicaOptions options;
  options.bind = start.replica_bind().empty() ? "127.0.0.1" : start.replica_bind();
  options.token = start.replica_token();
  options.deployment = start.deployment().empty() ? spec.name : start.deployment();
  options.model_name = model.name;
  options.model_version = model.reference;
  options.max_batch = spec.max_batch;
  options.max_queue = spec.max_queue;
  options.max_wait = spec.max_wait;
  options.timeout = spec.timeout;
  options.precision = spec.precision;
  return options;
}

// Leaves a part of the agent's grace for the end of the process.
Duration GraceOf(const wire::StartTask& start) {
  if (start.stop_grace_ms() == 0) return kDefaultGrace;
  return std::chrono::milliseconds(start.stop_grace_ms()) * 4 / 5;
}

// One row and one full batch, so that the first client does not pay for plans and page faults.
Status WarmUp(LoadedModel& model, int64_t max_batch) {
  for (const int64_t rows : {int64_t{1}, max_batch}) {
    std::vector<float> logits(static_cast<size_t>(rows * model.outputs()));
    LEPTON_RETURN_IF_ERROR(model.Run(model.BlankRows(rows), logits));
  }
  return {};
}

}  // namespace

Status RunInfer(TaskContext& context) {
  const wire::StartTask& start = context.start();
  if (start.replica_token().empty()) return InvalidArgument("replica_token: missing");
  LEPTON_ASSIGN_OR_RETURN(const ReplicaOptions options, MakeOptions(start));
  auto model = LoadedModel::Load(context.objects(), start.model_manifest(), options.precision);
  if (!model.ok()) return model.status().WithContext("model " + options.model_name);
  if ((*model)->manifest().labels_tokens()) {
    return InvalidArgument("model " + options.model_name +
                           ": gives a class per token, which a deployment cannot serve: train one "
                           "on it first");
  }
  if ((*model)->signature().per_token) {
    return InvalidArgument("model " + options.model_name +
                           ": is a language model, which a deployment cannot serve in this "
                           "version; ask it with kind: batch");
  }
  const MonotonicTime begin = RealClock().Now();
  LEPTON_RETURN_IF_ERROR(WarmUp(**model, options.max_batch));
  const double warmup_ms =
      std::chrono::duration<double, std::milli>(RealClock().Now() - begin).count();
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<ReplicaServer> replica,
                          ReplicaServer::Start(options, std::move(*model)));
  replica->SetReady(true);
  LOG(INFO) << "serving " << options.model_name << "@" << options.model_version << " at "
            << options.bind << ":" << replica->port() << ", warm after " << warmup_ms << " ms";
  context.ReportReady(options.bind, replica->port(), warmup_ms);
  while (!context.stop_requested()) std::this_thread::sleep_for(kStopPoll);
  replica->Drain(GraceOf(start));
  return Cancelled("the replica was stopped");
}

}  // namespace lepton::worker
