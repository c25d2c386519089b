#include "scheduler/api/respond.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <charconv>

#include "runtime/base/config.h"
#include "runtime/base/json_text.h"

namespace lepton::api {

using nlohmann::json;

namespace {

// So few bytes are verified before the answer begins, so that it can be an error.
constexpr uint64_t kReadAtOnce = uint64_t{1} << 20;

class ObjectSource final : public http::BodySource {
 public:
  explicit ObjectSource(std::unique_ptr<storage::ObjectStore::Reader> reader)
      : reader_(std::move(reader)) {}
  uint64_t size() const override { return reader_->size(); }
  Result<std::string> Next(size_t max_bytes) override { return reader_->Next(max_bytes); }

 private:
  const std::unique_ptr<storage::ObjectStore::Reader> reader_;
};

}  // namespace

Result<http::Response> ObjectResponse(const storage::ObjectStore& objects,
                                      const storage::Digest& digest, std::string_view type) {
  http::Response response = http::Response::Text(200, "", type);
  LEPTON_ASSIGN_OR_RETURN(const uint64_t size, objects.Size(digest));
  if (size <= kReadAtOnce) {
    LEPTON_ASSIGN_OR_RETURN(response.body, objects.Get(digest));
  } else {
    LEPTON_ASSIGN_OR_RETURN(auto reader, objects.Read(digest));
    response.source = std::make_shared<ObjectSource>(std::move(reader));
  }
  response.headers.emplace("ETag", "\"" + digest + "\"");
  return response;
}

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void SendJson(const http::ResponderPtr& responder, int status, const json& body) {
  responder->Send(http::Response::Json(status, Dump(body)));
}

void SendProblem(const http::ResponderPtr& responder, const Status& status) {
  http::Response problem = http::Problem(status);
  // What is exhausted here is room, not a number of requests: 429 would be tried again at once.
  if (status.code() == StatusCode::kResourceExhausted) {
    problem = http::HttpProblem(507, StatusCodeName(status.code()), status.message());
  }
  responder->Send(std::move(problem));
}

void SendResult(const http::ResponderPtr& responder, const Result<json>& result) {
  if (!result.ok()) return SendProblem(responder, result.status());
  SendJson(responder, 200, *result);
}

std::string QueryText(const http::Request& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

Result<int64_t> QueryInt(const http::Request& request, const std::string& name, int64_t fallback,
                         int64_t min, int64_t max) {
  const std::string text = QueryText(request, name);
  if (text.empty()) return fallback;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return InvalidArgument(
        fmt::format("{}: \"{}\" is not a whole number from {} to {}", name, text, min, max));
  }
  return value;
}

Result<bool> QueryFlag(const http::Request& request, const std::string& name) {
  const auto found = request.query.find(name);
  if (found == request.query.end() || found->second == "0" || found->second == "false") {
    return false;
  }
  if (found->second.empty() || found->second == "1" || found->second == "true") return true;
  return InvalidArgument(fmt::format("{}: \"{}\" is neither 1 nor 0", name, found->second));
}

Result<Duration> QueryDuration(const http::Request& request, const std::string& name,
                               Duration fallback, Duration max) {
  const std::string text = QueryText(request, name);
  if (text.empty()) return fallback;
  const auto parsed = ParseDuration(text);
  if (!parsed.ok()) return InvalidArgument(fmt::format("{}: {}", name, parsed.status().message()));
  return std::min(*parsed, max);
}

const std::string& Param(const http::Request& request, const std::string& name) {
  const auto found = request.params.find(name);
  CHECK(found != request.params.end()) << "the route has no {" << name << "}";
  return found->second;
}

Result<json> JsonBody(const http::Request& request, const std::vector<std::string>& known) {
  Result<json> parsed = ParseJson(request.body);
  if (!parsed.ok()) return parsed.status().WithContext("the body");
  json& body = *parsed;
  if (!body.is_object()) return InvalidArgument("the body is not a JSON object");
  for (const auto& [name, value] : body.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return InvalidArgument(
          fmt::format("{}: unknown field: known are {}", name, fmt::join(known, ", ")));
    }
  }
  return std::move(body);
}

}  // namespace lepton::api
