#include <fmt/format.h>

#include "runtime/base/json_text.h"
#include "runtime/base/mapped_file.h"
#include "runtime/http/body_file.h"
#include "scheduler/api/file_uri.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/job_inputs.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "storage/models/model_manifest.h"

namespace lepton::api {
namespace {

using nlohmann::json;

constexpr const char* kOnnxFile = "model.onnx";
constexpr const char* kOnnxDataFile = "model.onnx.data";

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

// model.onnx and model.onnx.data: made when they are asked for.
Result<http::Response> ExportedFile(const ApiParts& parts, const std::string& manifest,
                                    const std::string& file) {
  if (!parts.model_tools.export_onnx) {
    return FailedPrecondition("this coordinator cannot export models");
  }
  LEPTON_ASSIGN_OR_RETURN(ModelFiles files, parts.model_tools.export_onnx(parts.objects, manifest));
  const bool second = file != kOnnxFile;
  if (second && files.data.empty()) {
    return NotFound(fmt::format("no file {}: all weights are in {}", file, kOnnxFile));
  }
  return http::Response::Text(200, std::move(second ? files.data : files.model),
                              "application/octet-stream");
}

Result<http::Response> ReadModelFile(const ApiParts& parts, const std::string& manifest,
                                     const std::string& file) {
  if (file == kOnnxFile || file == kOnnxDataFile) return ExportedFile(parts, manifest, file);
  LEPTON_ASSIGN_OR_RETURN(std::string text, parts.objects.Get(manifest));
  if (file == storage::kManifestFile) return http::Response::Json(200, std::move(text));
  LEPTON_ASSIGN_OR_RETURN(const auto parsed, storage::ModelManifestFromJson(text));
  const auto files = parsed.FolderFiles();
  const auto found = files.find(file);
  if (found == files.end()) {
    std::string names;
    for (const auto& [name, digest] : files) names += ", " + name;
    return NotFound(fmt::format("no file {}: this model has {}{}, and {} on demand", file,
                                storage::kManifestFile, names, kOnnxFile));
  }
  return ObjectResponse(parts.objects, found->second, "application/octet-stream");
}

// On a pool thread: an ONNX model or the archive of a model folder from the body, or the
// file or folder that a JSON body names.
Result<ImportedModel> ImportModel(Api& api, const http::BodyFile* file) {
  const ModelTools& tools = api.parts().model_tools;
  UniqueFd fd;
  MappedFile mapped;
  if (file != nullptr) {
    LEPTON_ASSIGN_OR_RETURN(fd, file->Open());
    LEPTON_ASSIGN_OR_RETURN(mapped, MappedFile::Open(fmt::format("/proc/self/fd/{}", fd.get())));
  }
  const std::string_view body = mapped.bytes();
  if (tools.is_archive && tools.is_archive(body)) {
    return tools.import_archive(api.parts().objects, std::move(fd));
  }
  if (!tools.import_onnx) {
    return FailedPrecondition("this coordinator cannot import models");
  }
  ModelNames names;
  std::string named_bytes;
  std::filesystem::path folder;
  const bool names_file = !body.empty() && body[0] == '{';  // no ONNX file begins so
  if (names_file) {
    const json document = ParseJson(body).value_or(json());
    if (!document.is_object() || !document.contains("uri") || !document["uri"].is_string()) {
      return InvalidArgument(
          "uri: must be the file:// URI of an ONNX model, of a Hugging Face folder or of one that "
          "a run "
          "left");
    }
    for (const auto& [field, value] : document.items()) {
      if (field == "uri" || field == "features" || field == "classes") continue;
      return InvalidArgument(
          fmt::format("{}: unknown field: known are uri, features, classes", field));
    }
    const std::string uri = document["uri"].get<std::string>();
    LEPTON_ASSIGN_OR_RETURN(const ConfinedFile named,
                            OpenConfined("uri", uri, api.options().file_roots));
    if (named.folder) {
      const InputLimits limits{api.options().file_roots, api.options().max_import_bytes};
      return ImportFolderUri(api.parts().objects, limits, tools, "uri", uri);
    }
    LEPTON_ASSIGN_OR_RETURN(folder, PathOfFileUri("uri", uri));
    folder = folder.parent_path();
    LEPTON_ASSIGN_OR_RETURN(named_bytes, ReadConfinedFile("uri", uri, api.options().file_roots,
                                                          api.options().max_import_bytes));
    for (const auto& [key, list] :
         {std::pair{"features", &names.features}, std::pair{"classes", &names.classes}}) {
      const json given = document.value(key, json::array());
      if (!given.is_array()) return InvalidArgument(fmt::format("{}: must be a list", key));
      for (const json& item : given) {
        if (!item.is_string()) return InvalidArgument(fmt::format("{}: must be texts", key));
        list->push_back(item.get<std::string>());
      }
    }
  }
  return tools.import_onnx(api.parts().objects, names_file ? named_bytes : body, folder,
                           api.options().file_roots.but_not, names);
}

void Register(Api& api, const std::string& name, const http::BodyFile* body,
              const http::ResponderPtr& responder) {
  const auto hold = api.parts().loop.keeper().HoldAll();
  const Result<ImportedModel> imported = ImportModel(api, body);
  if (!imported.ok()) return SendProblem(responder, imported.status());
  scheduler::RegisterModel create;
  create.name = name;
  create.manifest = imported->manifest;
  create.objects = imported->objects;
  for (const auto& digest : imported->objects) api.parts().loop.keeper().Forget({digest});
  api.parts().loop.Post(std::move(create), [&api, responder, hold](const scheduler::Reply& reply,
                                                                   const scheduler::State& state) {
    if (!reply.status.ok()) return SendProblem(responder, reply.status);
    const auto found = state.FindModel("model", reply.id);
    if (!found.ok()) return SendProblem(responder, found.status());
    json view = ModelVersionView(*found->model, *found->version);
    const int status = reply.existed ? 200 : 201;
    api.parts().pool.Submit([&api, responder, status, view = std::move(view)]() mutable {
      const Status filled = FillModelVersion(api.parts().objects, view);
      if (!filled.ok()) return SendProblem(responder, filled);
      SendJson(responder, status, view);
    });
  });
}

}  // namespace

void ListModels(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read([page = *page, responder](const scheduler::State& state) {
    SendJson(responder, 200,
             MakePage(
                 state.models, page, [](const auto& entry) { return entry.first; },
                 [](const auto& entry) { return ModelView(entry.second); }));
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
  const auto page = ParseNumberedPage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read([&api, page = *page, name = Param(request, "name"),
                         responder](const scheduler::State& state) {
    const auto found = state.models.find(name);
    if (found == state.models.end()) {
      return SendProblem(responder, NotFound(fmt::format("no model {}", name)));
    }
    const auto list = std::make_shared<json>(MakePage(
        found->second.versions(), page, [](const auto& version) { return version.version(); },
        [&](const auto& version) { return ModelVersionView(found->second, version); }));
    api.parts().pool.Submit([&api, list, responder] {
      for (json& version : (*list)["items"]) {
        const Status status = FillModelVersion(api.parts().objects, version);
        if (!status.ok()) version["error"] = status.ToString();
      }
      SendJson(responder, 200, *list);
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
    auto response = ReadModelFile(api.parts(), version["manifest"].get<std::string>(), file);
    if (!response.ok()) return SendProblem(responder, response.status());
    responder->Send(*std::move(response));
  });
}

namespace {

// One file of a job's result: its model's, registered or not, or what it made beside a model.
Result<http::Response> ReadJobFile(const ApiParts& parts, const scheduler::JobResult& result,
                                   const std::string& file) {
  if (const auto found = result.files().find(file); found != result.files().end()) {
    const bool csv = file.ends_with(".csv");
    return ObjectResponse(parts.objects, found->second,
                          csv ? "text/csv" : "application/octet-stream");
  }
  if (!result.model_manifest().empty()) return ReadModelFile(parts, result.model_manifest(), file);
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
    if (job == nullptr) return SendProblem(responder, state.NoJob(id));
    api.parts().pool.Submit([&api, file, responder, result = job->result()] {
      auto response = ReadJobFile(api.parts(), result, file);
      if (!response.ok()) return SendProblem(responder, response.status());
      responder->Send(*std::move(response));
    });
  });
}

void CreateModelVersion(Api& api, http::Request request, http::ResponderPtr responder) {
  const std::string name = Param(request, "name");
  if (const Status status = CheckName("name", name); !status.ok()) {
    return SendProblem(responder, status);
  }
  api.parts().imports.Submit([&api, name, body = std::move(request.file), responder] {
    Register(api, name, body.get(), responder);
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
