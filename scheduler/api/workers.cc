#include <fmt/format.h>

#include "scheduler/api/handlers.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"

namespace lepton::api {
namespace {

using nlohmann::json;

json ViewOf(const Api& api, const scheduler::State& state, const scheduler::Worker& worker) {
  return WorkerView(state, worker, api.parts().vitals(WorkerId(worker.id())));
}

void SendWorker(const Api& api, const http::ResponderPtr& responder, const scheduler::State& state,
                const WorkerId& id) {
  const auto found = state.workers.find(id);
  if (found == state.workers.end()) {
    return SendProblem(responder, NotFound(fmt::format("no worker {}", id.str())));
  }
  SendJson(responder, 200, ViewOf(api, state, found->second));
}

}  // namespace

void ListWorkers(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([&api, responder](const scheduler::State& state) {
    json items = json::array();
    for (const auto& [id, worker] : state.workers) items.push_back(ViewOf(api, state, worker));
    SendJson(responder, 200, {{"items", std::move(items)}, {"next_cursor", ""}});
  });
}

void GetWorker(Api& api, http::Request request, http::ResponderPtr responder) {
  const WorkerId id(Param(request, "id"));
  api.parts().loop.Read([&api, id, responder](const scheduler::State& state) {
    SendWorker(api, responder, state, id);
  });
}

void DrainWorker(Api& api, http::Request request, http::ResponderPtr responder) {
  const WorkerId id(Param(request, "id"));
  const std::string who = request.principal.empty() ? "a caller" : "key " + request.principal;
  api.parts().loop.Post(
      scheduler::DrainWorker{id, "asked by " + who},
      [&api, id, responder](const scheduler::Reply& reply, const scheduler::State& state) {
        if (!reply.status.ok()) return SendProblem(responder, reply.status);
        SendWorker(api, responder, state, id);
      });
}

void GetCluster(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([&api, responder](const scheduler::State& state) {
    SendJson(responder, 200, ClusterView(state, api.parts().clock.WallMs() - api.started_ms()));
  });
}

}  // namespace lepton::api
