#include <fmt/format.h>

#include "runtime/spec/job_spec.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"

namespace lepton::api {
namespace {

using nlohmann::json;

Status NoDeployment(const std::string& name) {
  return NotFound(fmt::format("no deployment {}", name));
}

void SendDeployment(const http::ResponderPtr& responder, int status, const scheduler::State& state,
                    const std::string& name) {
  const auto found = state.deployments.find(name);
  if (found == state.deployments.end()) return SendProblem(responder, NoDeployment(name));
  http::Response response =
      http::Response::Json(status, Dump(DeploymentView(state, found->second)));
  response.headers.emplace("ETag", DeploymentEtag(found->second));
  if (status == 201) response.headers.emplace("Location", "/v1/deployments/" + name);
  responder->Send(std::move(response));
}

// RFC 9110: 412 when the state is not the one that the caller saw.
http::Response PreconditionFailed(const std::string& name) {
  return http::HttpProblem(
      412, "FAILED_PRECONDITION",
      fmt::format("deployment {} has changed since its ETag was read: read it again", name));
}

Result<int> ParseReplicas(const http::Request& request) {
  LEPTON_ASSIGN_OR_RETURN(const json body, JsonBody(request, {"replicas"}));
  const auto replicas = body.find("replicas");
  if (replicas == body.end()) return InvalidArgument("replicas: missing");
  if (!replicas->is_number_integer() || *replicas < 0 || *replicas > 64) {
    return InvalidArgument(
        fmt::format("replicas: {} is not a whole number from 0 to 64", Dump(*replicas)));
  }
  return replicas->get<int>();
}

// Whether a deployment is there, and still the one whose ETag the caller gives, if any.
std::function<Status(const scheduler::State&)> Unchanged(const std::string& name,
                                                         const std::string& wanted,
                                                         const std::shared_ptr<bool>& stale) {
  return [name, wanted, stale](const scheduler::State& state) {
    const auto found = state.deployments.find(name);
    if (found == state.deployments.end()) return NoDeployment(name);
    *stale = !wanted.empty() && wanted != "*" && wanted != DeploymentEtag(found->second);
    return *stale ? FailedPrecondition("If-Match") : Status::Ok();
  };
}

void SetReplicas(Api& api, const http::Request& request, const http::ResponderPtr& responder) {
  const auto replicas = ParseReplicas(request);
  if (!replicas.ok()) return SendProblem(responder, replicas.status());
  const std::string name = Param(request, "name");
  const auto stale = std::make_shared<bool>(false);
  api.parts().loop.Post(
      scheduler::ScaleDeployment{name, *replicas},
      [responder, name, stale](const scheduler::Reply& reply, const scheduler::State& state) {
        if (*stale) return responder->Send(PreconditionFailed(name));
        if (!reply.status.ok()) return SendProblem(responder, reply.status);
        SendDeployment(responder, 200, state, name);
      },
      Unchanged(name, request.Header("If-Match"), stale));
}

}  // namespace

void CreateDeployment(Api& api, http::Request request, http::ResponderPtr responder) {
  auto parsed = [&]() -> Result<spec::DeploymentSpec> {
    LEPTON_ASSIGN_OR_RETURN(const json document, spec::DocumentToJson(request.body));
    return spec::DeploymentSpecFromJson(document);
  }();
  if (!parsed.ok()) return SendProblem(responder, parsed.status());
  api.parts().loop.Read([&api, spec = *parsed, responder](const scheduler::State& state) {
    const auto found = state.FindModel("model", spec.model);
    if (!found.ok()) return SendProblem(responder, found.status());
    scheduler::CreateDeployment create;
    create.spec = spec;
    create.model = found->name;
    create.model_manifest = found->version->manifest();
    create.model_objects.emplace_back().set_digest(create.model_manifest);
    for (const auto& digest : found->version->objects()) {
      if (digest == create.model_manifest) continue;
      create.model_objects.emplace_back().set_digest(digest);
    }
    api.parts().loop.Post(
        std::move(create),
        [responder, name = spec.name](const scheduler::Reply& reply, const scheduler::State& now) {
          if (!reply.status.ok()) return SendProblem(responder, reply.status);
          SendDeployment(responder, reply.existed ? 200 : 201, now, name);
        });
  });
}

void ListDeployments(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read([page = *page, responder](const scheduler::State& state) {
    SendJson(responder, 200,
             MakePage(
                 state.deployments, page, [](const auto& entry) { return entry.first; },
                 [&](const auto& entry) { return DeploymentView(state, entry.second); }));
  });
}

void GetDeployment(Api& api, http::Request request, http::ResponderPtr responder) {
  api.parts().loop.Read([name = Param(request, "name"), responder](const scheduler::State& state) {
    SendDeployment(responder, 200, state, name);
  });
}

void PatchDeployment(Api& api, http::Request request, http::ResponderPtr responder) {
  SetReplicas(api, request, responder);
}

void ScaleDeployment(Api& api, http::Request request, http::ResponderPtr responder) {
  SetReplicas(api, request, responder);
}

void DeleteDeployment(Api& api, http::Request request, http::ResponderPtr responder) {
  const std::string name = Param(request, "name");
  const auto stale = std::make_shared<bool>(false);
  api.parts().loop.Post(
      scheduler::DeleteDeployment{name},
      [responder, name, stale](const scheduler::Reply& reply, const scheduler::State&) {
        if (*stale) return responder->Send(PreconditionFailed(name));
        if (!reply.status.ok()) return SendProblem(responder, reply.status);
        // Its replicas stop on their own time.
        SendJson(responder, 202, {{"name", name}, {"state", "DELETING"}});
      },
      Unchanged(name, request.Header("If-Match"), stale));
}

void ListReplicas(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read(
      [page = *page, name = Param(request, "name"), responder](const scheduler::State& state) {
        const auto found = state.deployments.find(name);
        if (found == state.deployments.end()) return SendProblem(responder, NoDeployment(name));
        const json view = DeploymentView(state, found->second);
        SendJson(responder, 200,
                 MakePage(
                     view["replica_states"], page,
                     [](const json& replica) { return replica["task_id"].get<std::string>(); },
                     [](const json& replica) { return replica; }));
      });
}

}  // namespace lepton::api
