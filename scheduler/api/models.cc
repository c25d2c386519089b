#include <fmt/format.h>

#include "scheduler/api/handlers.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "storage/models/model_manifest.h"

namespace lepton::api {
namespace {

using nlohmann::json;

// "digits" and "3" (or an alias) of a route -> "digits@3".
std::string ReferenceOf(const http::Request& request) {
  return Param(request, "name") + "@" + Param(request, "version");
}

// Finds the version on the state loop, then gives its view to `then` on a pool thread.
void WithVersion(Api& api, const http::Request& request, const http::ResponderPtr& responder,
                 std::function<void(json)> then) {
  const std::string reference = ReferenceOf(request);
  api.parts().loop.Read([&api, reference, responder, then](const scheduler::State& state) {
    const auto found = state.FindModel("model", reference);
    if (!found.ok()) return SendProblem(responder, found.status());
    json view = ModelVersionView(*found->model, *found->version);
    api.parts().pool.Submit([view = std::move(view), then] { then(view); });
  });
}

Result<http::Response> ReadModelFile(const storage::ObjectStore& objects,
                                     const std::string& manifest, const std::string& file) {
  LEPTON_ASSIGN_OR_RETURN(std::string text, objects.Get(manifest));
  if (file == "manifest.json") return http::Response::Json(200, std::move(text));
  if (file != "weights.safetensors") {
    return NotFound(
        fmt::format("no file {}: a model version has manifest.json and weights.safetensors", file));
  }
  LEPTON_ASSIGN_OR_RETURN(const auto parsed, storage::ModelManifestFromJson(text));
  LEPTON_ASSIGN_OR_RETURN(std::string weights, objects.Get(parsed.weights));
  http::Response response =
      http::Response::Text(200, std::move(weights), "application/octet-stream");
  response.headers.emplace("ETag", "\"" + parsed.weights + "\"");
  return response;
}

}  // namespace

void ListModels(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([responder](const scheduler::State& state) {
    json items = json::array();
    for (const auto& [name, model] : state.models) items.push_back(ModelView(model));
    SendJson(responder, 200, {{"items", std::move(items)}, {"next_cursor", ""}});
  });
}

void GetModel(Api& api, http::Request request, http::ResponderPtr responder) {
  api.parts().loop.Read([name = Param(request, "name"), responder](const scheduler::State& state) {
    const auto found = state.models.find(name);
    if (found == state.models.end()) {
      return SendProblem(responder, NotFound(fmt::format("no model {}", name)));
    }
    SendJson(responder, 200, ModelView(found->second));
  });
}

void ListModelVersions(Api& api, http::Request request, http::ResponderPtr responder) {
  api.parts().loop.Read(
      [&api, name = Param(request, "name"), responder](const scheduler::State& state) {
        const auto found = state.models.find(name);
        if (found == state.models.end()) {
          return SendProblem(responder, NotFound(fmt::format("no model {}", name)));
        }
        const auto items = std::make_shared<json>(json::array());
        for (const auto& version : found->second.versions()) {
          items->push_back(ModelVersionView(found->second, version));
        }
        api.parts().pool.Submit([&api, items, responder] {
          for (json& version : *items) {
            const Status status = FillModelVersion(api.parts().objects, version);
            if (!status.ok()) version["error"] = status.ToString();
          }
          SendJson(responder, 200, {{"items", *items}, {"next_cursor", ""}});
        });
      });
}

void GetModelVersion(Api& api, http::Request request, http::ResponderPtr responder) {
  WithVersion(api, request, responder, [&api, responder](json version) {
    const Status status = FillModelVersion(api.parts().objects, version);
    if (!status.ok()) return SendProblem(responder, status);
    SendJson(responder, 200, version);
  });
}

void GetModelLineage(Api& api, http::Request request, http::ResponderPtr responder) {
  WithVersion(api, request, responder, [responder](json version) {
    json lineage = version["lineage"];
    lineage["name"] = version["name"];
    lineage["version"] = version["version"];
    SendJson(responder, 200, lineage);
  });
}

void GetModelFile(Api& api, http::Request request, http::ResponderPtr responder) {
  const std::string file = Param(request, "file");
  WithVersion(api, request, responder, [&api, responder, file](json version) {
    auto response =
        ReadModelFile(api.parts().objects, version["manifest"].get<std::string>(), file);
    if (!response.ok()) return SendProblem(responder, response.status());
    responder->Send(*std::move(response));
  });
}

namespace {

// One file of a job's result: its model's, registered or not, or what it made beside a model.
Result<http::Response> ReadJobFile(const storage::ObjectStore& objects,
                                   const scheduler::JobResult& result, const std::string& file) {
  if (const auto found = result.files().find(file); found != result.files().end()) {
    LEPTON_ASSIGN_OR_RETURN(std::string bytes, objects.Get(found->second));
    const bool csv = file.ends_with(".csv");
    http::Response response =
        http::Response::Text(200, std::move(bytes), csv ? "text/csv" : "application/octet-stream");
    response.headers.emplace("ETag", "\"" + found->second + "\"");
    return response;
  }
  if (!result.model_manifest().empty())
    return ReadModelFile(objects, result.model_manifest(), file);
  std::string names;
  for (const auto& [name, digest] : result.files()) names += (names.empty() ? "" : ", ") + name;
  return NotFound(names.empty() ? "the job has no model and no files"
                                : fmt::format("no file {}: the job has {}", file, names));
}

}  // namespace

void GetJobFile(Api& api, http::Request request, http::ResponderPtr responder) {
  const JobId id(Param(request, "id"));
  const std::string file = Param(request, "file");
  api.parts().loop.Read([&api, id, file, responder](const scheduler::State& state) {
    const scheduler::Job* job = state.FindJob(id);
    if (job == nullptr) return SendProblem(responder, NotFound(fmt::format("no job {}", id.str())));
    api.parts().pool.Submit([&api, file, responder, result = job->result()] {
      auto response = ReadJobFile(api.parts().objects, result, file);
      if (!response.ok()) return SendProblem(responder, response.status());
      responder->Send(*std::move(response));
    });
  });
}

void PutModelAlias(Api& api, http::Request request, http::ResponderPtr responder) {
  const std::string name = Param(request, "name");
  const auto version = [&]() -> Result<uint32_t> {
    LEPTON_RETURN_IF_ERROR(CheckName("alias", Param(request, "alias")));
    LEPTON_ASSIGN_OR_RETURN(const json body, JsonBody(request, {"version"}));
    const auto field = body.find("version");
    if (field == body.end()) return InvalidArgument("version: missing");
    if (!field->is_number_unsigned() || *field > 0xffffffffu) {
      return InvalidArgument(fmt::format("version: {} is not a version's number", Dump(*field)));
    }
    return field->get<uint32_t>();
  }();
  if (!version.ok()) return SendProblem(responder, version.status());
  api.parts().loop.Post(
      scheduler::SetAlias{name, Param(request, "alias"), *version},
      [responder, name](const scheduler::Reply& reply, const scheduler::State& state) {
        if (!reply.status.ok()) return SendProblem(responder, reply.status);
        SendJson(responder, 200, ModelView(state.models.at(name)));
      });
}

}  // namespace lepton::api
