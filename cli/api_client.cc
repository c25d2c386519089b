#include "cli/api_client.h"

#include <arpa/inet.h>
#include <strings.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "runtime/base/file.h"
#include "runtime/spec/job_spec.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct Target {
  std::string coordinator, api_key, ca_file;
};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// The chosen context of ~/.config/lepton/config.yaml; empty when there is no such file.
Result<Target> FromConfigFile(const std::string& wanted) {
  const std::string home = Environment("XDG_CONFIG_HOME").empty() ? Environment("HOME") + "/.config"
                                                                  : Environment("XDG_CONFIG_HOME");
  const std::string path = home + "/lepton/config.yaml";
  const Result<std::string> text = ReadFile(path, 1 << 20);
  if (!text.ok()) {
    if (wanted.empty()) return Target{};
    return text.status().WithContext("context '" + wanted + "'");
  }
  const Result<json> parsed = spec::DocumentToJson(*text);
  if (!parsed.ok()) return parsed.status().WithContext(path);
  const json& document = *parsed;
  if (!document.is_object()) return InvalidArgument(path + ": must be a mapping");
  std::string name = wanted;
  if (const auto current = document.find("current"); name.empty() && current != document.end()) {
    if (current->is_null()) return Target{};
    if (!current->is_string()) return InvalidArgument(path + ": current: must name a context");
    name = current->get<std::string>();
  }
  if (name.empty()) return Target{};
  const json* context = nullptr;
  if (const auto all = document.find("contexts"); all != document.end() && all->is_object()) {
    if (const auto it = all->find(name); it != all->end() && it->is_object()) context = &*it;
  }
  if (context == nullptr) return InvalidArgument(path + ": no context '" + name + "'");
  Target target;
  for (const auto& [key, value] : context->items()) {
    std::string* field = key == "coordinator" ? &target.coordinator
                         : key == "api_key"   ? &target.api_key
                         : key == "ca_file"   ? &target.ca_file
                                              : nullptr;
    if (field == nullptr || !value.is_string()) {
      return InvalidArgument(path + ": contexts." + name + "." + key +
                             ": known are coordinator, api_key, ca_file, each a text");
    }
    *field = value.get<std::string>();
  }
  return target;
}

bool IsThisMachine(const std::string& host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  in_addr address{};
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

bool SamePlace(const std::string& a, const std::string& b) {
  const Result<http::Url> one = http::ParseUrl(a), other = http::ParseUrl(b);
  if (!one.ok() || !other.ok()) return a == b;
  return one->tls == other->tls && one->port == other->port &&
         ::strcasecmp(one->host.c_str(), other->host.c_str()) == 0;
}

void Override(std::string& field, const std::string& stronger) {
  if (!stronger.empty()) field = stronger;
}

}  // namespace

ApiClient::ApiClient(std::string url, http::Url parsed, http::ClientOptions options)
    : url_(std::move(url)), parsed_(parsed), options_(options), client_(parsed_, options_) {}

std::unique_ptr<ApiClient> ApiClient::Twin() const {
  return std::unique_ptr<ApiClient>(new ApiClient(url_, parsed_, options_));
}

Result<std::unique_ptr<ApiClient>> ApiClient::FromGlobals(const Globals& globals) {
  LEPTON_ASSIGN_OR_RETURN(Target target, FromConfigFile(globals.context));
  const std::string of_context = target.coordinator;
  const bool environment = globals.context.empty();
  if (environment) Override(target.coordinator, Environment("LEPTON_COORDINATOR"));
  Override(target.coordinator, globals.coordinator);
  // A context's key is for its own coordinator, not for another that is named in its place; one
  // without a coordinator is for whichever is named.
  if (!of_context.empty() && !SamePlace(target.coordinator, of_context) &&
      !target.api_key.empty()) {
    std::fprintf(stderr, "lepton: the context's API key is for %s and not sent to %s\n",
                 of_context.c_str(), target.coordinator.c_str());
    target.api_key.clear();
  }
  if (environment) {
    Override(target.api_key, Environment("LEPTON_API_KEY"));
    Override(target.ca_file, Environment("LEPTON_CA_FILE"));
  }
  Override(target.api_key, globals.api_key);
  Override(target.ca_file, globals.ca_file);
  if (target.coordinator.empty()) target.coordinator = "http://127.0.0.1:7600";
  LEPTON_ASSIGN_OR_RETURN(auto client, ForUrl(target.coordinator, {.bearer_token = target.api_key,
                                                                   .ca_file = target.ca_file}));
  const http::Url& url = client->parsed_;
  if (!target.api_key.empty() && !url.tls && !IsThisMachine(url.host) &&
      Environment("LEPTON_INSECURE_HTTP") != "1") {
    return FailedPrecondition("--coordinator: " + target.coordinator +
                              " is not encrypted, so no API key is sent there; use https, or set "
                              "LEPTON_INSECURE_HTTP=1 where the network is trusted");
  }
  return client;
}

Result<std::unique_ptr<ApiClient>> ApiClient::ForUrl(const std::string& url,
                                                     const http::ClientOptions& options) {
  Result<http::Url> parsed = http::ParseUrl(url);
  if (!parsed.ok()) return parsed.status().WithContext("--coordinator");
  return std::unique_ptr<ApiClient>(new ApiClient(url, *std::move(parsed), options));
}

Result<http::Response> ApiClient::Raw(const std::string& method, const std::string& target,
                                      std::string body, const http::Headers& headers,
                                      Duration timeout) {
  http::Request request;
  request.method = method;
  request.target = target;
  request.headers = headers;
  request.body = std::move(body);
  Result<http::Response> response = client_.Call(request, Deadline::In(timeout));
  if (!response.ok()) return Explained(response.status());
  if (response->status >= 300) return http::StatusFromResponse(*response);
  return response;
}

Status ApiClient::Explained(const Status& status) const {
  if (status.code() != StatusCode::kUnavailable) return status;
  return Unavailable("no coordinator at " + url_ + " (" + status.message() +
                     "); start one with `lepton coordinator`, or name it with --coordinator or "
                     "LEPTON_COORDINATOR");
}

Status ApiClient::Download(const std::string& target,
                           const std::function<Status(std::string_view)>& take) {
  // The coordinator reads, or makes, a file before its first byte comes.
  constexpr Duration kSilence = std::chrono::seconds(300);
  http::Request request;
  request.method = "GET";
  request.target = target;
  Status taken;
  uint64_t came = 0;
  const Status status = client_.CallStreaming(
      request, Deadline::Never(),
      [&](std::string_view bytes) {
        came += bytes.size();
        taken = take(bytes);
        return taken.ok();
      },
      kSilence);
  if (!taken.ok()) return taken;
  if (came > 0 && status.code() == StatusCode::kUnavailable) {
    return Unavailable(target + ": broke off after " + std::to_string(came) +
                       " bytes; the coordinator's log says whether the file is damaged");
  }
  return Explained(status);
}

Result<json> ApiClient::Get(const std::string& target, Duration timeout) {
  LEPTON_ASSIGN_OR_RETURN(const http::Response response, Raw("GET", target, "", {}, timeout));
  json body = json::parse(response.body, nullptr, false);
  if (body.is_discarded()) return Internal(target + ": the answer is not JSON");
  return body;
}

Result<json> ApiClient::Send(const std::string& method, const std::string& target,
                             const json& body) {
  LEPTON_ASSIGN_OR_RETURN(const http::Response response,
                          Raw(method, target, body.is_null() ? "" : body.dump(),
                              {{"Content-Type", "application/json"}}));
  if (response.body.empty()) return json(nullptr);
  json answer = json::parse(response.body, nullptr, false);
  if (answer.is_discarded()) return Internal(target + ": the answer is not JSON");
  return answer;
}

Result<json> ApiClient::List(const std::string& target) {
  json items = json::array();
  std::string cursor;
  do {
    std::string page = target;
    if (!cursor.empty()) {
      page += (page.find('?') == std::string::npos ? "?cursor=" : "&cursor=") + UrlEncode(cursor);
    }
    LEPTON_ASSIGN_OR_RETURN(const json answer, Get(page));
    for (const json& item : answer.value("items", json::array())) items.push_back(item);
    cursor = answer.value("next_cursor", std::string());
  } while (!cursor.empty());
  return items;
}

Status ApiClient::Follow(const std::string& target,
                         const std::function<bool(const http::SseParser::Event&)>& on_event) {
  // The coordinator writes at least every 10 s.
  constexpr Duration kSilence = std::chrono::seconds(35);
  constexpr Duration kAway = std::chrono::minutes(1);
  std::string last_id;
  // From the first failure: who was stopped meanwhile (Ctrl-Z) asks again.
  auto back_by = Deadline::Never();
  for (;;) {
    http::SseParser parser;
    bool wanted = true;
    http::Request request;
    request.method = "GET";
    request.target = target;
    request.headers = {{"Accept", "text/event-stream"}};
    if (!last_id.empty()) request.headers.emplace("Last-Event-ID", last_id);
    const Status status = client_.CallStreaming(
        request, Deadline::Never(),
        [&](std::string_view bytes) {
          back_by = Deadline::Never();  // a quiet job's stream lives, too
          for (const auto& event : parser.Feed(bytes)) {
            if (!event.id.empty()) last_id = event.id;
            if (!(wanted = on_event(event))) return false;
          }
          return true;
        },
        kSilence);
    if (!wanted) return Status::Ok();
    const bool broken =
        status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kDeadlineExceeded;
    if (!status.ok() && !broken) return status;
    back_by = Deadline(std::min(back_by.at(), Deadline::In(kAway).at()));
    if (back_by.Expired()) {
      return status.ok() ? Unavailable("the stream ended early") : status;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
}

std::string UrlEncode(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto b = static_cast<unsigned char>(c);
    if (std::isalnum(b) || c == '-' || c == '_' || c == '.' || c == '~' || c == '@') {
      out += c;
    } else {
      out += '%';
      out += kHex[b >> 4];
      out += kHex[b & 15];
    }
  }
  return out;
}

}  // namespace lepton::cli
