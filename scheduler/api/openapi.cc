#include "scheduler/api/openapi.h"

#include <fmt/format.h>

#include <cctype>

#include "runtime/base/json.h"

namespace lepton::api {
namespace {

using nlohmann::json;

struct Template {
  std::string path;                // "/v1/jobs/{id}:cancel"
  std::vector<std::string> names;  // placeholders, in order
};

// OpenAPI has no "rest of the path" placeholder: {path...} becomes {path}.
Template ToTemplate(std::string_view pattern) {
  Template out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '{') {
      out.path += pattern[i];
      continue;
    }
    const size_t end = pattern.find('}', i);
    std::string name(pattern.substr(i + 1, end - i - 1));
    if (name.ends_with("...")) name.resize(name.size() - 3);
    out.path += "{" + name + "}";
    out.names.push_back(name);
    i = end;
  }
  return out;
}

// "GET /v1/jobs/{id}:cancel" -> "getV1JobsIdCancel": unique, since method and path are.
std::string OperationId(const ApiRoute& route) {
  std::string id;
  for (const char c : route.method) id += static_cast<char>(std::tolower(c));
  bool upper = true;
  for (const char c : route.pattern) {
    if (!std::isalnum(static_cast<unsigned char>(c))) {
      upper = true;
      continue;
    }
    id += upper ? static_cast<char>(std::toupper(c)) : c;
    upper = false;
  }
  return id;
}

json Content(std::string_view schema) {
  if (schema.find('/') != std::string_view::npos) {
    return {{std::string(schema), {{"schema", json::object()}}}};
  }
  return {{"application/json",
           {{"schema", {{"$ref", fmt::format("#/components/schemas/{}", schema)}}}}}};
}

json Parameters(const ApiRoute& route, const Template& path) {
  json parameters = json::array();
  for (const auto& name : path.names) {
    parameters.push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  for (const auto& parameter : route.parameters) {
    parameters.push_back({{"name", parameter.name},
                          {"in", parameter.in},
                          {"description", parameter.description},
                          {"schema", {{"type", parameter.type}}}});
  }
  return parameters;
}

json Responses(const ApiRoute& route) {
  json success = {{"description", "Done."}};
  if (!route.response.empty()) success["content"] = Content(route.response);
  for (const auto& parameter : route.parameters) {
    if (parameter.name == "follow") {
      success["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
    }
  }
  json problem = {
      {"description", "A problem, RFC 9457."},
      {"content",
       {{"application/problem+json", {{"schema", {{"$ref", "#/components/schemas/Problem"}}}}}}}};
  json responses = {{std::to_string(route.success), success}, {"default", problem}};
  if (!route.existing.empty()) {
    responses["200"] = {{"description", "It was there already, as after a repeated call."},
                        {"content", Content(route.existing)}};
  }
  return responses;
}

json Operation(const ApiRoute& route, const Template& path) {
  json operation = {{"operationId", OperationId(route)},
                    {"summary", route.summary},
                    {"tags", json::array({route.tag})},
                    {"parameters", Parameters(route, path)},
                    {"responses", Responses(route)}};
  if (!route.request.empty()) {
    json content = Content(route.request);
    if (route.request == "JobSpec") content["application/yaml"] = content["application/json"];
    if (!route.request_too.empty()) content.update(Content(route.request_too));
    operation["requestBody"] = {{"required", !route.body_optional}, {"content", content}};
  }
  // An API without keys accepts no credentials at all, hence the empty alternative.
  if (route.scope == Scope::kNone) {
    operation["security"] = json::array();
  } else {
    operation["security"] = json::array({{{"key", json::array()}}, json::object()});
    operation["description"] =
        fmt::format("Needs scope `{}` once any API key exists.", ScopeName(route.scope));
  }
  return operation;
}

}  // namespace

json MakeOpenApi(const std::vector<ApiRoute>& routes) {
  json paths = json::object();
  for (const auto& route : routes) {
    const Template path = ToTemplate(route.pattern);
    std::string method;
    for (const char c : route.method) method += static_cast<char>(std::tolower(c));
    paths[path.path][method] = Operation(route, path);
  }
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "Lepton"},
        {"version", "v1"},
        {"description", "Train, tune, distil and serve models on one elastic pool of workers."}}},
      {"paths", paths},
      {"components",
       {{"schemas", ComponentSchemas()},
        {"securitySchemes",
         {{"key",
           {{"type", "http"},
            {"scheme", "bearer"},
            {"description", "An API key: lk_<id>_<secret>."}}}}}}}};
}

}  // namespace lepton::api
