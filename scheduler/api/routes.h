// The coordinator's routes as data. The router, the authoriser, /openapi.json and the tests all
// read this one table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/http/http.h"
#include "scheduler/api/auth.h"

namespace lepton::api {

class Api;

// ApiRoute::request of bodies that are kept as they are: they come as http::Request::file.
inline constexpr std::string_view kFileBody = "application/octet-stream";

// Runs on an HTTP thread: must not block. Answers through the responder, now or later.
using ApiHandler = void (*)(Api&, http::Request, http::ResponderPtr);

struct Parameter {
  std::string_view name;
  std::string_view type;  // JSON Schema type
  std::string_view description;
  std::string_view in = "query";  // or "header"
};

struct ApiRoute {
  std::string_view method;
  std::string_view pattern;  // as for http::Route
  Scope scope;
  std::string_view tag;
  std::string_view summary;
  ApiHandler handler;
  std::string_view request =
      "";  // a component schema, or a media type with a slash; "" for no body
  std::string_view response = "";  // the same
  int success = 200;
  std::vector<Parameter> parameters = {};
  // Of 200 beside success 201, when what is made was there already: a component schema.
  std::string_view existing = "";
  std::string_view request_too = "";  // a second form of the body, like request
  bool body_optional = false;
};

// Built once; lives for ever.
const std::vector<ApiRoute>& Routes();

}  // namespace lepton::api
