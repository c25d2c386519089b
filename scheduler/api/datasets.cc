#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "runtime/http/body_file.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/job_inputs.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "storage/datasets/import.h"

namespace lepton::api {
namespace {

using nlohmann::json;

void AddRef(const storage::ObjectStore& objects, const std::string& digest,
            std::vector<wire::ObjectRef>& refs) {
  auto& ref = refs.emplace_back();
  ref.set_digest(digest);
  if (const auto size = objects.Size(digest); size.ok()) ref.set_bytes(*size);
}

// On a pool thread: from a manifest's view to the whole.
void SendVersion(Api& api, const http::ResponderPtr& responder, int status, json version) {
  const Status filled = FillDatasetVersion(api.parts().objects, version);
  if (!filled.ok()) return SendProblem(responder, filled);
  SendJson(responder, status, version);
}

// The version is found on the state loop; `then` gets its view on a pool thread.
void WithVersion(Api& api, const http::Request& request, const http::ResponderPtr& responder,
                 std::function<void(json)> then) {
  const std::string reference = Param(request, "name") + "@" + Param(request, "version");
  api.parts().loop.Read([&api, reference, responder, then](const scheduler::State& state) {
    const auto found = state.FindDataset("dataset", reference);
    if (!found.ok()) return SendProblem(responder, found.status());
    json view = DatasetVersionView(*found->dataset, *found->version);
    api.parts().pool.Submit([view = std::move(view), then] { then(view); });
  });
}

// What to import, and how: a body that was uploaded, or a URI.
struct ImportRequest {
  storage::ImportOptions options;
  std::string uri;
  std::shared_ptr<const http::BodyFile> body;  // null: none
};

std::string FormatOfType(const std::string& content_type) {
  const std::string type = content_type.substr(0, content_type.find(';'));
  if (type == "text/csv") return "csv";
  if (type == "application/x-ndjson" || type == "application/jsonl") return "jsonl";
  if (type == "text/plain") return "text";
  if (type == "application/x-tar" || type == "application/zip") return "images";
  return "auto";
}

Result<ImportRequest> ParseImport(http::Request& request) {
  ImportRequest import;
  import.options.name = Param(request, "name");
  LEPTON_RETURN_IF_ERROR(CheckName("name", import.options.name));
  import.options.path = QueryText(request, "filename");
  import.options.format = QueryText(request, "format");
  import.uri = QueryText(request, "uri");
  const std::vector<std::string>& formats = storage::DatasetFormats();
  if (import.options.format.empty()) {
    import.options.format =
        import.uri.empty() ? FormatOfType(request.Header("Content-Type")) : "auto";
  } else if (std::find(formats.begin(), formats.end(), import.options.format) == formats.end()) {
    return InvalidArgument(fmt::format("format: \"{}\" is not one of {}", import.options.format,
                                       fmt::join(formats, ", ")));
  }
  import.options.token_type = QueryText(request, "token_type");
  if (import.options.token_type.empty()) import.options.token_type = "auto";
  const std::string& token_type = import.options.token_type;
  if (token_type != "auto" && token_type != "u16" && token_type != "u32") {
    return InvalidArgument(
        fmt::format("token_type: \"{}\" is not one of auto, u16, u32", token_type));
  }
  import.body = std::move(request.file);
  if (!import.uri.empty() && import.body != nullptr) {
    return InvalidArgument("uri: the request has a body too; give one of them");
  }
  return import;
}

Result<storage::ImportedDataset> RunImport(Api& api, const ImportRequest& import) {
  const auto line =
      api.imports().Begin("dataset " + import.options.name, api.parts().clock.WallMs());
  const InputLimits limits{
      api.options().file_roots, api.options().max_import_bytes,
      [&line](const storage::ImportProgress& progress) { return line->Update(progress); }};
  if (!import.uri.empty()) {
    return ImportUri(api.parts().objects, limits, "uri", import.uri, import.options);
  }
  storage::ImportOptions options = import.options;
  options.progress = limits.progress;
  storage::ByteSource bytes = storage::ByteSource::FromMemory("");
  if (import.body != nullptr) {
    LEPTON_ASSIGN_OR_RETURN(UniqueFd file, import.body->Open());
    LEPTON_ASSIGN_OR_RETURN(bytes, storage::ByteSource::FromFile(std::move(file)));
  }
  return storage::ImportFile(api.parts().objects, std::move(bytes), options);
}

// On a thread of the imports.
void Import(Api& api, const ImportRequest& import, const http::ResponderPtr& responder) {
  const auto hold = api.parts().loop.keeper().HoldAll();
  const auto imported = RunImport(api, import);
  if (!imported.ok()) return SendProblem(responder, imported.status());
  scheduler::CreateDataset create;
  create.name = import.options.name;
  create.manifest = imported->digest;
  create.rows = imported->manifest.rows;
  for (const auto& digest :
       {imported->digest, imported->manifest.source, imported->manifest.table}) {
    if (digest.empty()) continue;
    AddRef(api.parts().objects, digest, create.objects);
    api.parts().loop.keeper().Forget({digest});  // should the next step fail
  }
  api.parts().loop.Post(std::move(create), [&api, responder, hold](const scheduler::Reply& reply,
                                                                   const scheduler::State& state) {
    if (!reply.status.ok()) return SendProblem(responder, reply.status);
    const auto found = state.FindDataset("dataset", reply.id);
    if (!found.ok()) return SendProblem(responder, found.status());
    json view = DatasetVersionView(*found->dataset, *found->version);
    const int status = reply.existed ? 200 : 201;
    api.parts().pool.Submit([&api, responder, status, view = std::move(view)] {
      SendVersion(api, responder, status, view);
    });
  });
}

}  // namespace

void CreateDataset(Api& api, http::Request request, http::ResponderPtr responder) {
  auto parsed = ParseImport(request);
  if (!parsed.ok()) return SendProblem(responder, parsed.status());
  const auto import = std::make_shared<ImportRequest>(*std::move(parsed));
  api.parts().imports.Submit([&api, import, responder] { Import(api, *import, responder); });
}

void ListImports(Api& api, http::Request, http::ResponderPtr responder) {
  json items = json::array();
  for (const ImportBoard::Line& line : api.imports().Lines()) {
    items.push_back({{"subject", line.subject},
                     {"phase", line.phase},
                     {"done", line.done},
                     {"total", line.total},
                     {"started_ms", line.started_ms}});
  }
  SendJson(responder, 200, {{"items", std::move(items)}, {"next_cursor", ""}});
}

void ListDatasets(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read([page = *page, responder](const scheduler::State& state) {
    SendJson(responder, 200,
             MakePage(
                 state.datasets, page, [](const auto& entry) { return entry.first; },
                 [](const auto& entry) { return DatasetView(entry.second); }));
  });
}

void GetDataset(Api& api, http::Request request, http::ResponderPtr responder) {
  api.parts().loop.Read([name = Param(request, "name"), responder](const scheduler::State& state) {
    const auto found = state.datasets.find(name);
    if (found == state.datasets.end()) {
      return SendProblem(responder, NotFound(fmt::format("no dataset {}", name)));
    }
    SendJson(responder, 200, DatasetView(found->second));
  });
}

void ListDatasetVersions(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParseNumberedPage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read([&api, page = *page, name = Param(request, "name"),
                         responder](const scheduler::State& state) {
    const auto found = state.datasets.find(name);
    if (found == state.datasets.end()) {
      return SendProblem(responder, NotFound(fmt::format("no dataset {}", name)));
    }
    const auto list = std::make_shared<json>(MakePage(
        found->second.versions(), page, [](const auto& version) { return version.version(); },
        [&](const auto& version) { return DatasetVersionView(found->second, version); }));
    api.parts().pool.Submit([&api, list, responder] {
      for (json& version : (*list)["items"]) {
        const Status status = FillDatasetVersion(api.parts().objects, version);
        if (!status.ok()) version["error"] = status.ToString();
      }
      SendJson(responder, 200, *list);
    });
  });
}

void GetDatasetVersion(Api& api, http::Request request, http::ResponderPtr responder) {
  WithVersion(api, request, responder, [&api, responder](json version) {
    SendVersion(api, responder, 200, std::move(version));
  });
}

void GetDatasetProfile(Api& api, http::Request request, http::ResponderPtr responder) {
  WithVersion(api, request, responder, [&api, responder](json version) {
    const auto profile = [&]() -> Result<std::string> {
      LEPTON_ASSIGN_OR_RETURN(const std::string bytes,
                              api.parts().objects.Get(version.value("manifest", "")));
      LEPTON_ASSIGN_OR_RETURN(auto manifest, storage::DatasetManifestFromJson(bytes));
      return std::move(manifest.profile_json);
    }();
    if (!profile.ok()) return SendProblem(responder, profile.status());
    responder->Send(http::Response::Json(200, *profile));
  });
}

}  // namespace lepton::api
