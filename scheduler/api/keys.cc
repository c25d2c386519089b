#include <fmt/format.h>

#include "runtime/base/config.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"

namespace lepton::api {
namespace {

using nlohmann::json;

struct NewKey {
  std::string name;
  std::set<Scope> scopes;
  Duration ttl{0};
};

Result<NewKey> ParseNewKey(const http::Request& request) {
  LEPTON_ASSIGN_OR_RETURN(const json body, JsonBody(request, {"name", "scopes", "ttl"}));
  NewKey key;
  const json name = body.value("name", json(""));
  if (!name.is_string()) return InvalidArgument("name: not a text");
  key.name = name.get<std::string>();
  const json scopes = body.value("scopes", json::array());
  if (!scopes.is_array()) {
    return InvalidArgument("scopes: not a list of admin, submit, predict and read");
  }
  for (const json& scope : scopes) {
    if (!scope.is_string()) return InvalidArgument("scopes: not a list of texts");
    LEPTON_ASSIGN_OR_RETURN(const Scope parsed, ParseScope(scope.get<std::string>()));
    key.scopes.insert(parsed);
  }
  const auto ttl = body.find("ttl");
  if (ttl == body.end()) return key;
  if (!ttl->is_string()) return InvalidArgument("ttl: not a duration such as \"30d\"");
  const auto parsed = ParseDuration(ttl->get<std::string>());
  if (!parsed.ok()) return parsed.status().WithContext("ttl");
  key.ttl = *parsed;
  return key;
}

}  // namespace

// Keys are written to disk and synced: pool threads.
void CreateKey(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto parsed = ParseNewKey(request);
  if (!parsed.ok()) return SendProblem(responder, parsed.status());
  // From the first key on, every call needs one: without an admin key nobody could make others.
  if (api.parts().keys.empty() && !parsed->scopes.contains(Scope::kAdmin)) {
    return SendProblem(responder, FailedPrecondition("scopes: the first key must have admin"));
  }
  api.parts().pool.Submit([&api, key = *parsed, responder] {
    const auto created = api.parts().keys.Create(key.name, key.scopes, key.ttl);
    if (!created.ok()) return SendProblem(responder, created.status());
    json view = KeyView(created->key);
    view["key"] = created->secret;
    http::Response response = http::Response::Json(201, Dump(view));
    response.headers.emplace("Cache-Control", "no-store");
    responder->Send(std::move(response));
  });
}

void ListKeys(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto page = ParsePage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  SendJson(responder, 200,
           MakePage(
               api.parts().keys.List(), *page, [](const ApiKey& key) { return key.id; }, KeyView));
}

void RevokeKey(Api& api, http::Request request, http::ResponderPtr responder) {
  api.parts().pool.Submit([&api, id = Param(request, "id"), responder] {
    const Status status = api.parts().keys.Revoke(id);
    if (!status.ok()) return SendProblem(responder, status);
    SendJson(responder, 200, {{"id", id}, {"revoked", true}});
  });
}

}  // namespace lepton::api
