// A POST that may import for long, with what it does meanwhile on the progress line.
// Threads: one caller; the progress is asked for on a thread of its own, which ends with the call.
#pragma once

#include <functional>
#include <string>

#include "cli/api_client.h"

namespace lepton::cli {

// As ApiClient::Raw, without a deadline short of a day. `subject`: the import's line on
// GET /v1/imports, "job NAME" or "dataset NAME". `while_waiting`: called every tenth of a second,
// on a thread of its own.
Result<http::Response> PostWithProgress(ApiClient& client, const std::string& subject,
                                        const std::string& target, std::string body,
                                        const http::Headers& headers,
                                        const std::function<void()>& while_waiting = nullptr);

}  // namespace lepton::cli
