#include "scheduler/api/api.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <array>

#include "runtime/base/json.h"
#include "runtime/base/metrics.h"
#include "scheduler/api/bind_check.h"
#include "scheduler/api/openapi.h"

namespace lepton::api {
namespace {

// Methods that no route has are one, or anybody could make a series of each.
std::string MethodLabel(const std::string& method) {
  constexpr std::array<std::string_view, 7> kMethods = {"GET",   "HEAD",   "POST",   "PUT",
                                                        "PATCH", "DELETE", "OPTIONS"};
  return std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end() ? method : "other";
}

// A request as it is counted and logged.
class Call {
 public:
  Call(const http::Request& request, const http::Route* route)
      // The target as it was sent: decoded, it could hold a line's end.
      : line_(fmt::format("{} {}", request.method,
                          request.target.substr(0, request.target.find_first_of("?#")))),
        peer_(request.peer),
        method_(MethodLabel(request.method)),
        route_(route != nullptr ? route->pattern : "none"),
        start_(RealClock().Now()) {}

  void SetPrincipal(std::string principal) { principal_ = std::move(principal); }

  void Count(int code) const {
    const double seconds = std::chrono::duration<double>(RealClock().Now() - start_).count();
    metrics::Counter("lepton_http_requests_total", "HTTP requests by route and status code.",
                     {{"route", route_}, {"method", method_}, {"code", std::to_string(code)}})
        .Increment();
    metrics::Histogram("lepton_http_request_duration_seconds",
                       "Time from a request's arrival to its answer's start.", {{"route", route_}})
        .Observe(seconds);
    // Reads that went well are what pollers make by the thousand.
    const bool dull = code < 400 && (method_ == "GET" || method_ == "HEAD");
    if (dull && !VLOG_IS_ON(1)) return;
    LOG(INFO) << fmt::format("{} {} {:.1f} ms {} {}", line_, code, seconds * 1e3, peer_,
                             principal_.empty() ? "anonymous" : principal_);
  }

 private:
  const std::string line_, peer_, method_, route_;
  const MonotonicTime start_;
  std::string principal_;
};

// Counts and logs the answer on its way out.
class CountedResponder final : public http::Responder {
 public:
  CountedResponder(http::ResponderPtr inner, Call call)
      : inner_(std::move(inner)), call_(std::move(call)) {}

  void Send(http::Response response) override {
    call_.Count(response.status);
    inner_->Send(std::move(response));
  }
  std::shared_ptr<http::Stream> StartStream(int status, http::Headers headers) override {
    call_.Count(status);
    return inner_->StartStream(status, std::move(headers));
  }
  bool cancelled() const override { return inner_->cancelled(); }
  void OnCancel(std::function<void()> callback) override { inner_->OnCancel(std::move(callback)); }

 private:
  const http::ResponderPtr inner_;
  const Call call_;
};

http::Response Unauthorized(std::string_view detail) {
  http::Response response = http::HttpProblem(401, "UNAUTHENTICATED", detail);
  response.headers.emplace("WWW-Authenticate", "Bearer realm=\"lepton\"");
  return response;
}

http::Response MethodNotAllowed(const http::Request& request,
                                const std::vector<std::string>& allow) {
  http::Response response = http::HttpProblem(
      405, "METHOD_NOT_ALLOWED",
      fmt::format("{} is not allowed here: use {}", request.method, fmt::join(allow, ", ")));
  response.headers.emplace("Allow", fmt::format("{}", fmt::join(allow, ", ")));
  return response;
}

// "http://a:1" and Host "a:1" are of one origin.
bool CrossOrigin(const http::Request& request) {
  const std::string origin = request.Header("Origin");
  if (origin.empty()) return false;
  const size_t at = origin.find("://");
  return at == std::string::npos || origin.substr(at + 3) != request.Header("Host");
}

bool LoopbackHost(std::string host) {
  if (host.starts_with('[')) return host.starts_with("[::1]");
  host = host.substr(0, host.find(':'));
  return host.empty() || IsLoopback(host);
}

// The error of a query parameter that the route does not have; a misspelt filter must not answer
// with everything.
Status CheckQuery(const ApiRoute& route, const http::Request& request) {
  if (!route.pattern.starts_with("/v1/")) return Status::Ok();
  std::vector<std::string_view> known;
  for (const Parameter& parameter : route.parameters) {
    if (parameter.in == "query") known.push_back(parameter.name);
  }
  for (const auto& [name, value] : request.query) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return InvalidArgument(fmt::format(
        "{}: no such query parameter; {}", name,
        known.empty() ? "this call has none" : fmt::format("use {}", fmt::join(known, ", "))));
  }
  return Status::Ok();
}

// A row of the gateway's, for the description only. Borrows the row's texts.
ApiRoute Describe(const http::Route& row) {
  ApiRoute route{row.method, row.pattern, Scope::kPredict, row.tag, row.summary, nullptr};
  if (!row.request_schema.empty() || row.method == "POST") route.request = "application/json";
  route.response = "application/json";
  return route;
}

}  // namespace

Api::Api(ApiParts parts, ApiOptions options)
    : parts_(std::move(parts)), options_(std::move(options)), started_ms_(parts_.clock.WallMs()) {
  std::vector<http::Route> rows;
  for (const ApiRoute& route : Routes()) {
    http::Route row;
    row.method = route.method;
    row.pattern = route.pattern;
    row.scope = ScopeName(route.scope);
    row.summary = route.summary;
    row.tag = route.tag;
    row.handler = [this, &route](http::Request request, http::ResponderPtr responder) {
      if (const Status status = CheckQuery(route, request); !status.ok()) {
        return responder->Send(http::Problem(status));
      }
      route.handler(*this, std::move(request), std::move(responder));
    };
    row.request_schema = route.request;
    row.response_schema = route.response;
    rows.push_back(std::move(row));
  }
  std::vector<ApiRoute> described = Routes();
  for (const http::Route& row : parts_.gateway_routes) {
    described.push_back(Describe(row));
    rows.push_back(row);
  }
  openapi_ = std::make_unique<nlohmann::json>(MakeOpenApi(described));
  router_ = std::make_unique<http::Router>(std::move(rows));
}

Api::~Api() = default;

void Api::Handle(http::Request request, http::ResponderPtr responder) {
  std::vector<std::string> allow;
  const http::Route* route = router_->Find(request, &allow);
  Call call(request, route);
  if (auto refusal = Refusal(route, allow, request)) {
    call.Count(refusal->status);
    return responder->Send(*std::move(refusal));
  }
  call.SetPrincipal(request.principal);
  route->handler(std::move(request),
                 std::make_shared<CountedResponder>(std::move(responder), std::move(call)));
}

std::optional<http::Response> Api::Refuse(http::Request& head) const {
  std::vector<std::string> allow;
  const http::Route* route = router_->Find(head, &allow);
  auto refusal = Refusal(route, allow, head);
  if (refusal) Call(head, route).Count(refusal->status);
  return refusal;
}

bool Api::IsUpload(http::Request& head) const {
  const http::Route* route = router_->Find(head);
  return route != nullptr && route->request_schema == kFileBody;
}

std::optional<http::Response> Api::Refusal(const http::Route* route,
                                           const std::vector<std::string>& allow,
                                           http::Request& request) const {
  if (route == nullptr) {
    return allow.empty() ? http::Problem(NotFound(fmt::format("no route {}", request.path)))
                         : MethodNotAllowed(request, allow);
  }
  // A page of another site, open in a browser on this machine, can reach loopback ports too.
  if (CrossOrigin(request)) {
    return http::Problem(PermissionDenied("requests from pages of other origins are refused"));
  }
  const auto scope = ParseScope(route->scope);
  if (!scope.ok()) return std::nullopt;  // open to all
  if (parts_.keys.empty() && !options_.require_auth) {
    // And so can a name that was made to resolve to 127.0.0.1 (DNS rebinding).
    if (LoopbackHost(request.Header("Host"))) return std::nullopt;
    return http::Problem(
        PermissionDenied("without API keys only http://localhost and http://127.0.0.1 are served"));
  }
  const std::string header = request.Header("Authorization");
  constexpr std::string_view kBearer = "Bearer ";
  if (!header.starts_with(kBearer)) {
    return Unauthorized("an API key is needed: send Authorization: Bearer lk_...");
  }
  const auto key = parts_.keys.Check(std::string_view(header).substr(kBearer.size()));
  if (!key.ok()) return Unauthorized(key.status().message());
  if (!Allows(*key, *scope)) {
    return http::Problem(PermissionDenied(
        fmt::format("this needs scope {}, which key {} does not have", route->scope, key->id)));
  }
  request.principal = key->name.empty() ? key->id : fmt::format("{} ({})", key->id, key->name);
  return std::nullopt;
}

}  // namespace lepton::api
