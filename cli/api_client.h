// The coordinator's HTTP API as JSON calls. Threads: one caller.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/command.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/http/client.h"

namespace lepton::cli {

class ApiClient {
 public:
  // The URL and credentials from flags, the environment and the user's config file, in that order
  // of strength.
  static Result<std::unique_ptr<ApiClient>> FromGlobals(const Globals& globals);
  static Result<std::unique_ptr<ApiClient>> ForUrl(const std::string& url,
                                                   const http::ClientOptions& options = {});

  // A JSON answer; an error status becomes its Status. Default deadline: 60 s.
  Result<nlohmann::json> Get(const std::string& target,
                             Duration timeout = std::chrono::seconds(60));
  Result<nlohmann::json> Send(const std::string& method, const std::string& target,
                              const nlohmann::json& body);
  // Any body and any answer.
  Result<http::Response> Raw(const std::string& method, const std::string& target, std::string body,
                             const http::Headers& headers = {},
                             Duration timeout = std::chrono::seconds(300));
  // A file of any size, piece by piece, for as long as pieces come. An error of `take` ends it and
  // is its own.
  Status Download(const std::string& target, const std::function<Status(std::string_view)>& take);
  // All items of a paged list.
  Result<nlohmann::json> List(const std::string& target);
  // Calls `on_event` for each server-sent event until it returns false or the stream ends; on a
  // broken connection goes on from the last id, for up to a minute without success.
  Status Follow(const std::string& target,
                const std::function<bool(const http::SseParser::Event&)>& on_event);

  const std::string& url() const { return url_; }
  bool has_key() const { return !options_.bearer_token.empty(); }
  // Another client of the same coordinator, for another thread.
  std::unique_ptr<ApiClient> Twin() const;

 private:
  ApiClient(std::string url, http::Url parsed, http::ClientOptions options);
  // What a call's error means to whoever typed it.
  Status Explained(const Status& status) const;
  std::string url_;
  http::Url parsed_;
  http::ClientOptions options_;
  http::Client client_;
};

// "a b" -> "a%20b", for one segment of a path or a query value.
std::string UrlEncode(std::string_view text);

}  // namespace lepton::cli
