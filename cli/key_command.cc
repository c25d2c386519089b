#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"
#include "runtime/base/config.h"
#include "scheduler/coordinator.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct KeyOptions {
  std::string name = "default", ttl, data_dir, id;
  std::vector<std::string> scopes = {"admin"};
};

int CreateOffline(const Globals& globals, const KeyOptions& options) {
  scheduler::NewApiKey key{.name = options.name, .scopes = options.scopes};
  if (!options.ttl.empty()) {
    const Result<Duration> ttl = ParseDuration(options.ttl);
    if (!ttl.ok()) return Fail(ttl.status().WithContext("--ttl"));
    key.ttl = *ttl;
  }
  const Result<std::string> secret = scheduler::CreateApiKey(options.data_dir, key);
  if (!secret.ok()) return Fail(secret.status());
  if (globals.output != "table") {
    const std::string id = secret->substr(3, secret->find('_', 3) - 3);  // lk_<id>_<secret>
    const json made = {
        {"id", id}, {"name", options.name}, {"scopes", options.scopes}, {"key", *secret}};
    std::fputs(Document(made, globals.output).c_str(), stdout);
    return kExitOk;
  }
  std::fprintf(stderr, "This key is shown once; only its hash is kept.\n");
  std::printf("%s\n", secret->c_str());
  return kExitOk;
}

int Create(const Globals& globals, KeyOptions options) {
  if (options.ttl == "0") options.ttl = "0s";
  if (!options.data_dir.empty()) return CreateOffline(globals, options);
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  json body = {{"name", options.name}, {"scopes", options.scopes}};
  if (!options.ttl.empty()) body["ttl"] = options.ttl;
  const Result<json> key = (*client)->Send("POST", "/v1/keys", body);
  if (!key.ok()) return Fail(key.status());
  if (globals.output != "table") {
    std::fputs(Document(*key, globals.output).c_str(), stdout);
    return kExitOk;
  }
  std::fprintf(stderr, "This key is shown once; only its hash is kept.\n");
  std::printf("%s\n", Text(*key, "key").c_str());
  return kExitOk;
}

int ListKeys(const Globals& globals) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> keys = (*client)->List("/v1/keys");
  if (!keys.ok()) return Fail(keys.status());
  if (globals.output != "table") {
    std::fputs(Document(*keys, globals.output).c_str(), stdout);
    return kExitOk;
  }
  Table table({"ID", "NAME", "SCOPES", "EXPIRES"});
  for (const json& key : *keys) {
    std::string scopes;
    for (const json& scope : key.value("scopes", json::array())) {
      scopes += (scopes.empty() ? "" : ",") + scope.get<std::string>();
    }
    char when[32];
    const auto expires = static_cast<int64_t>(Number(key, "expires_ms"));
    table.Row({Text(key, "id"), Text(key, "name"), scopes,
               expires > 0 ? std::string(FormatWallMs(expires, when)) : "never"});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

int Revoke(const Globals& globals, const std::string& id) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> done = (*client)->Send("DELETE", "/v1/keys/" + UrlEncode(id), nullptr);
  if (!done.ok()) return Fail(done.status());
  PrintAnswer(*done, globals.output, "key " + id + " revoked");
  return kExitOk;
}

}  // namespace

void AddKey(CLI::App& app, Globals& globals) {
  CLI::App* key = app.add_subcommand("key", "API keys: create, list, revoke");
  key->require_subcommand(1)->fallthrough();
  auto options = std::make_shared<KeyOptions>();
  CLI::App* create = AddAction(*key, globals, "create", "Make a key; it is printed once",
                               [=, &globals] { return Create(globals, *options); });
  create->footer(
      "Scopes: admin allows everything; submit starts and reads work; predict asks deployments;\n"
      "read looks. As soon as one key exists, every call needs one.\n"
      "Examples:\n"
      "  lepton key create --data-dir ./lepton-data            the first one, offline\n"
      "  lepton key create --name ci --scope submit --ttl 30d");
  create->add_option("--name", options->name, "For people [default]");
  create
      ->add_option("--scope", options->scopes,
                   "admin, submit, predict or read; may be repeated [admin]")
      ->check(CLI::IsMember({"admin", "submit", "predict", "read"}));
  create->add_option("--ttl", options->ttl,
                     "Expires after this long, such as 30d; 0: never [never]");
  create->add_option("--data-dir", options->data_dir,
                     "Write into this folder of a coordinator that is not running (the first key)");
  AddAction(*key, globals, "ls", "List keys", [&globals] { return ListKeys(globals); });
  CLI::App* revoke = AddAction(*key, globals, "revoke", "Make a key useless",
                               [=, &globals] { return Revoke(globals, options->id); });
  revoke->add_option("id", options->id, "The key's id")->required();
}

}  // namespace lepton::cli
