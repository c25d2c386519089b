// Routes requests by method and path. The table is data: the API makes its OpenAPI document from
// the same rows that it serves. Threads: immutable after construction; Handle, Refuse and Find from
// any thread.
#pragma once

#include "runtime/http/http.h"

namespace lepton::http {

// Patterns: "/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}:cancel" (a custom verb after a colon),
// "/assets/{path...}" (the rest of the path, at the end only). Literals win over placeholders, a
// verb over none. Values arrive decoded in Request::params.
struct Route {
  std::string method;  // "GET" (serves HEAD too), "POST", ...
  std::string pattern;
  std::string scope;    // what the caller must be allowed to do; "" for everybody
  std::string summary;  // one line, for OpenAPI
  std::string tag;      // "jobs", for OpenAPI
  Handler handler;
  std::string request_schema;  // component names in OpenAPI; "" for none
  std::string response_schema;
};

class Router {
 public:
  // Runs after a route was found and before its handler: sets request.principal, or returns the
  // Response that refuses the request.
  using Guard = std::function<std::optional<Response>(const Route&, Request&)>;
  // Answers what no route matches; by default a problem document.
  using Fallback = std::function<Response(const Request&, int status)>;

  // CHECK-fails on a malformed pattern or two rows with the same method and shape.
  explicit Router(std::vector<Route> routes, Guard guard = nullptr, Fallback fallback = nullptr);
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // 404 when no pattern has this path, 405 with Allow when one has it under other methods.
  void Handle(Request request, ResponderPtr responder) const;
  // What Handle would refuse for the request's head alone: ServerOptions::refuse. `found` gets the
  // route.
  std::optional<Response> Refuse(Request& request, const Route** found = nullptr) const;
  // The row for this request, its placeholders put into request.params; null if none. `allow` gets
  // the methods that the path does have.
  const Route* Find(Request& request, std::vector<std::string>* allow = nullptr) const;

  const std::vector<Route>& routes() const { return routes_; }
  // A Handler for Server::Start; borrows this router.
  Handler AsHandler() const;

 private:
  struct Compiled;
  std::vector<Route> routes_;
  std::vector<Compiled> compiled_;  // same order as routes_
  Guard guard_;
  Fallback fallback_;
};

}  // namespace lepton::http
