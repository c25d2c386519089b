// The HTTP API: authorises, routes, counts and logs each request, and holds what the handlers of
// routes.cc work with. Handlers run on HTTP threads and never block: what needs the state runs on
// the state loop, what needs the disk on `pool`, and what may read much for minutes on `imports`.
// Threads: Handle, Refuse and IsUpload from any. All parts must outlive the HTTP server and both
// queues.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/base/work_queue.h"
#include "runtime/http/http.h"
#include "runtime/http/router.h"
#include "scheduler/api/auth.h"
#include "scheduler/api/file_uri.h"
#include "scheduler/api/import_board.h"
#include "scheduler/api/model_tools.h"
#include "scheduler/api/routes.h"
#include "scheduler/api/watch.h"
#include "scheduler/loop/history.h"
#include "scheduler/loop/state_loop.h"
#include "storage/objects/object_store.h"

namespace lepton::api {

// What a worker's last heartbeat said, if it is connected.
struct WorkerVitals {
  int64_t last_seen_ms = 0;
  double load_average = 0;
  uint64_t memory_used_bytes = 0;
};

struct ApiParts {
  scheduler::StateLoop& loop;
  scheduler::History& history;
  JobWatch& watch;
  KeyStore& keys;
  storage::ObjectStore& objects;
  WorkQueue& pool;
  WorkQueue& imports;
  Clock& clock;
  std::function<std::optional<WorkerVitals>(const WorkerId&)> vitals;
  std::vector<http::Route> gateway_routes;  // /v2/... and :predict
  ModelTools model_tools;
};

struct ApiOptions {
  FileRoots file_roots;
  bool require_auth = false;  // also while no key exists
  size_t max_import_bytes = size_t{1} << 30;
};

class Api {
 public:
  Api(ApiParts parts, ApiOptions options);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  void Handle(http::Request request, http::ResponderPtr responder);
  // What Handle would refuse for its head alone, so that the body need not be read:
  // http::ServerOptions::refuse.
  std::optional<http::Response> Refuse(http::Request& head) const;
  // Whether the request's body is a file to keep, and so comes as one:
  // http::ServerOptions::to_file.
  bool IsUpload(http::Request& head) const;

  const ApiParts& parts() const { return parts_; }
  const ApiOptions& options() const { return options_; }
  int64_t started_ms() const { return started_ms_; }
  ImportBoard& imports() { return imports_; }
  // Every route that is served, the gateway's too.
  const std::vector<http::Route>& routes() const { return router_->routes(); }
  const nlohmann::json& openapi() const { return *openapi_; }

 private:
  // Of what Router::Find gave. Nothing when the caller may go on; sets request.principal.
  std::optional<http::Response> Refusal(const http::Route* route,
                                        const std::vector<std::string>& allow,
                                        http::Request& request) const;

  const ApiParts parts_;
  const ApiOptions options_;
  const int64_t started_ms_;
  ImportBoard imports_;
  std::unique_ptr<http::Router> router_;
  std::unique_ptr<nlohmann::json> openapi_;
};

}  // namespace lepton::api
