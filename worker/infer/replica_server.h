// One replica's HTTP side: authorisation, the two protocols, readiness and metrics, over a Batcher.
//
//   GET  /v2   /v2/health/live   /v2/health/ready   /metrics
//   GET  /v2/models/{model}[/versions/{version}][/ready]
//   POST /v2/models/{model}[/versions/{version}]/infer
//   POST /v1/deployments/{name}:predict
//
// {model} is the model's or the deployment's name. All but the two health calls need the bearer
// token. Errors under /v2 are {"error": "..."}, elsewhere problem documents.
// Threads: all methods from any.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "runtime/http/router.h"
#include "runtime/http/server.h"
#include "worker/infer/batcher.h"
#include "worker/infer/model_runtime.h"
#include "worker/infer/served_model.h"

namespace lepton::worker {

struct ReplicaOptions {
  std::string bind = "127.0.0.1";
  std::string token;       // empty: nobody is let in
  std::string deployment;  // its name
  std::string model_name, model_version;
  int64_t max_batch = 32;
  int64_t max_queue = 1024;
  std::string precision = "model";  // of the model that it is given, as the deployment asks
  Duration max_wait = std::chrono::milliseconds(2);
  Duration timeout = std::chrono::seconds(10);
};

class ReplicaServer {
 public:
  // `model` is used by the batcher's thread only from now on.
  static Result<std::unique_ptr<ReplicaServer>> Start(const ReplicaOptions& options,
                                                      std::unique_ptr<LoadedModel> model);
  ~ReplicaServer();

  uint16_t port() const { return server_->port(); }
  void SetReady(bool ready) { ready_ = ready; }
  // Not ready any more; stops accepting and finishes what is in flight, for `grace` at most.
  void Drain(Duration grace);

 private:
  ReplicaServer(const ReplicaOptions& options, std::unique_ptr<LoadedModel> model);
  std::vector<http::Route> MakeRoutes();
  std::optional<http::Response> Authorise(const http::Route& route, const http::Request& request);
  // A problem when the request names another model or version.
  Status CheckModel(const http::Request& request) const;
  void Infer(const http::Request& request, const http::ResponderPtr& responder);
  void Predict(const http::Request& request, const http::ResponderPtr& responder);
  // Runs the rows and answers with what `encode` makes of the logits.
  void RunRows(ModelRows rows, bool v2, const http::ResponderPtr& responder,
               std::function<http::Response(const std::vector<float>&)> encode);

  const ReplicaOptions options_;
  const std::unique_ptr<LoadedModel> model_;
  const ServedModel served_;
  std::atomic<bool> ready_{false};
  Batcher batcher_;
  http::Router router_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace lepton::worker
