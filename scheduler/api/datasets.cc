#include <fmt/format.h>

#include "scheduler/api/handlers.h"
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

// On a pool thread.
void Import(Api& api, const std::string& name, const std::string& csv,
            const http::ResponderPtr& responder) {
  const auto hold = api.parts().loop.keeper().HoldAll();
  const auto imported = storage::ImportCsv(api.parts().objects, name, csv);
  if (!imported.ok()) return SendProblem(responder, imported.status());
  scheduler::CreateDataset create;
  create.name = name;
  create.manifest = imported->digest;
  create.rows = imported->manifest.rows;
  for (const auto& digest :
       {imported->digest, imported->manifest.source, imported->manifest.table}) {
    AddRef(api.parts().objects, digest, create.objects);
    api.parts().loop.keeper().Forget({digest});  // should the next step fail
  }
  api.parts().loop.Post(
      std::move(create),
      [&api, responder, hold, name](const scheduler::Reply& reply, const scheduler::State& state) {
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
  const std::string name = Param(request, "name");
  if (const Status status = CheckName("name", name); !status.ok()) {
    return SendProblem(responder, status);
  }
  const auto body = std::make_shared<std::string>(std::move(request.body));
  api.parts().pool.Submit([&api, name, body, responder] { Import(api, name, *body, responder); });
}

void ListDatasets(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([responder](const scheduler::State& state) {
    json items = json::array();
    for (const auto& [name, dataset] : state.datasets) items.push_back(DatasetView(dataset));
    SendJson(responder, 200, {{"items", std::move(items)}, {"next_cursor", ""}});
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
  api.parts().loop.Read(
      [&api, name = Param(request, "name"), responder](const scheduler::State& state) {
        const auto found = state.datasets.find(name);
        if (found == state.datasets.end()) {
          return SendProblem(responder, NotFound(fmt::format("no dataset {}", name)));
        }
        const auto items = std::make_shared<json>(json::array());
        for (const auto& version : found->second.versions()) {
          items->push_back(DatasetVersionView(found->second, version));
        }
        api.parts().pool.Submit([&api, items, responder] {
          for (json& version : *items) {
            const Status status = FillDatasetVersion(api.parts().objects, version);
            if (!status.ok()) version["error"] = status.ToString();
          }
          SendJson(responder, 200, {{"items", *items}, {"next_cursor", ""}});
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
