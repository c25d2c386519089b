// How handlers read a request and answer it.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "runtime/http/http.h"
#include "storage/objects/object_store.h"

namespace lepton::api {

// Bytes that are not UTF-8 (file names, log lines) are replaced, not refused.
std::string Dump(const nlohmann::json& value);
void SendJson(const http::ResponderPtr& responder, int status, const nlohmann::json& body);
void SendProblem(const http::ResponderPtr& responder, const Status& status);
void SendResult(const http::ResponderPtr& responder, const Result<nlohmann::json>& result);

// 200 with an object's bytes, and its digest as ETag: read as they are sent, unless they are few.
Result<http::Response> ObjectResponse(const storage::ObjectStore& objects,
                                      const storage::Digest& digest, std::string_view type);

// A query parameter; each error names it and what is allowed.
Result<int64_t> QueryInt(const http::Request& request, const std::string& name, int64_t fallback,
                         int64_t min, int64_t max);
Result<bool> QueryFlag(const http::Request& request, const std::string& name);
Result<Duration> QueryDuration(const http::Request& request, const std::string& name,
                               Duration fallback, Duration max);
std::string QueryText(const http::Request& request, const std::string& name);

// A placeholder of the route; it is always there.
const std::string& Param(const http::Request& request, const std::string& name);

// The body as a JSON object with no other fields than `known`.
Result<nlohmann::json> JsonBody(const http::Request& request,
                                const std::vector<std::string>& known);

}  // namespace lepton::api
