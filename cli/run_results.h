// What `lepton run` leaves behind, and `lepton fetch` brings: weights.safetensors and manifest.json
// of the model, metrics.jsonl, events.jsonl, trials.json of a search, log.txt and job.json.
#pragma once

#include <filesystem>

#include "cli/api_client.h"
#include "cli/spec_file.h"
#include "runtime/base/json.h"

namespace lepton::cli {

// Before the run: kFailedPrecondition where its results would replace what is not a run's, that is
// anything of their names in a folder in which `made_by_run` is false, and what the spec begins
// with.
Status CheckPlaceOfResults(const SpecFile& file, const std::filesystem::path& folder,
                           bool made_by_run);

Status SaveResults(ApiClient& client, const nlohmann::json& job,
                   const std::filesystem::path& folder);

}  // namespace lepton::cli
