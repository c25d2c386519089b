// What `lepton run` leaves behind: weights.safetensors and manifest.json of the model,
// metrics.jsonl, events.jsonl, trials.json of a search, log.txt and job.json.
#pragma once

#include <filesystem>

#include "cli/api_client.h"
#include "runtime/base/json.h"

namespace lepton::cli {

Status SaveResults(ApiClient& client, const nlohmann::json& job,
                   const std::filesystem::path& folder);

}  // namespace lepton::cli
