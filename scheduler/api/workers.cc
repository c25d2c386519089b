#include <fmt/format.h>

#include "scheduler/api/handlers.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "scheduler/core/job_state.h"

namespace lepton::api {
namespace {

using nlohmann::json;

json ViewOf(const Api& api, const scheduler::State& state, const scheduler::Worker& worker) {
  return WorkerView(state, worker, api.parts().vitals(WorkerId(worker.id())));
}

Result<scheduler::WorkerState> ParseState(const std::string& name) {
  if (name.empty()) return scheduler::WORKER_STATE_UNSPECIFIED;
  for (const auto state :
       {scheduler::WORKER_UP, scheduler::WORKER_DRAINING, scheduler::WORKER_LOST}) {
    if (scheduler::WorkerStateName(state) == name) return state;
  }
  return InvalidArgument(
      fmt::format("state: \"{}\" is no worker state: use UP, DRAINING or LOST", name));
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

void ListWorkers(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  const auto wanted = ParseState(QueryText(request, "state"));
  if (!wanted.ok()) return SendProblem(responder, wanted.status());
  api.parts().loop.Read(
      [&api, page = *page, wanted = *wanted, responder](const scheduler::State& state) {
        std::vector<const scheduler::Worker*> workers;
        for (const auto& [id, worker] : state.workers) {
          if (wanted == scheduler::WORKER_STATE_UNSPECIFIED || worker.state() == wanted) {
            workers.push_back(&worker);
          }
        }
        SendJson(responder, 200,
                 MakePage(
                     workers, page, [](const auto* worker) { return worker->id(); },
                     [&](const auto* worker) { return ViewOf(api, state, *worker); }));
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
