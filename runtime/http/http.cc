#include "runtime/http/http.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "runtime/http/reason.h"

namespace lepton::http {
namespace {

using Json = nlohmann::json;

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// The part before the first ": " when it looks like a field's path: "optimizer.lr", "rows[3].x".
std::string FieldOf(std::string_view message) {
  const size_t end = message.find(": ");
  if (end == std::string_view::npos || end == 0 || end > 200) return "";
  const std::string_view path = message.substr(0, end);
  if (std::isalpha(static_cast<unsigned char>(path[0])) == 0 && path[0] != '_') return "";
  const bool plain = std::all_of(path.begin(), path.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_.-[]").find(c) != std::string_view::npos;
  });
  return plain ? std::string(path) : "";
}

std::string Dump(const Json& document) {
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

StatusCode CodeFromHttp(int status) {
  switch (status) {
    case 401:
    case 403:
      return StatusCode::kPermissionDenied;
    case 404:
      return StatusCode::kNotFound;
    case 408:
    case 504:
      return StatusCode::kDeadlineExceeded;
    case 409:
    case 412:
      return StatusCode::kFailedPrecondition;
    case 429:
    case 507:
      return StatusCode::kResourceExhausted;
    case 499:
      return StatusCode::kCancelled;
    case 502:
    case 503:
      return StatusCode::kUnavailable;
    default:
      return status >= 400 && status < 500 ? StatusCode::kInvalidArgument : StatusCode::kInternal;
  }
}

}  // namespace

bool CaseLess::operator()(std::string_view a, std::string_view b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](char x, char y) { return Lower(x) < Lower(y); });
}

std::string Request::Header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Response Response::Json(int status, std::string body) {
  return Text(status, std::move(body), "application/json");
}

Response Response::Text(int status, std::string body, std::string_view type) {
  Response response;
  response.status = status;
  response.headers.emplace("Content-Type", type);
  response.body = std::move(body);
  return response;
}

int HttpStatus(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return 200;
    case StatusCode::kInvalidArgument:
      return 400;
    case StatusCode::kNotFound:
      return 404;
    case StatusCode::kAlreadyExists:
    case StatusCode::kFailedPrecondition:
    case StatusCode::kAborted:
      return 409;
    case StatusCode::kPermissionDenied:
      return 403;
    case StatusCode::kResourceExhausted:
      return 429;
    case StatusCode::kDeadlineExceeded:
      return 504;
    case StatusCode::kUnavailable:
      return 503;
    case StatusCode::kCancelled:
      return 499;
    case StatusCode::kDeviceFailed:
    case StatusCode::kDataLoss:
    case StatusCode::kInternal:
      return 500;
  }
  return 500;
}

Response HttpProblem(int status, std::string_view code, std::string_view detail) {
  Json document = {{"type", "about:blank"},
                   {"title", ReasonPhrase(status)},
                   {"status", status},
                   {"code", code},
                   {"detail", detail}};
  return Response::Text(status, Dump(document), "application/problem+json");
}

Response Problem(const Status& status) {
  const int http_status = HttpStatus(status.code());
  Json document = {{"type", "about:blank"},
                   {"title", ReasonPhrase(http_status)},
                   {"status", http_status},
                   {"code", StatusCodeName(status.code())},
                   {"detail", status.message()}};
  if (status.code() == StatusCode::kInvalidArgument) {
    const std::string field = FieldOf(status.message());
    if (!field.empty()) document["field"] = field;
  }
  return Response::Text(http_status, Dump(document), "application/problem+json");
}

Status StatusFromResponse(const Response& response) {
  if (response.status >= 200 && response.status < 300) return {};
  StatusCode code = CodeFromHttp(response.status);
  std::string message =
      std::to_string(response.status) + " " + std::string(ReasonPhrase(response.status));
  const Json document = Json::parse(response.body, nullptr, false);
  if (document.is_object()) {
    const auto text = [&document](const char* key) {
      const auto found = document.find(key);
      return found != document.end() && found->is_string() ? found->get<std::string>()
                                                           : std::string();
    };
    if (!text("code").empty()) code = StatusCodeFromName(text("code"));
    if (code == StatusCode::kOk) code = StatusCode::kInternal;
    if (!text("detail").empty()) {
      message = text("detail");
    } else if (!text("error").empty()) {
      message = text("error");
    }
  }
  return Status(code, std::move(message));
}

}  // namespace lepton::http
