// Model formats for the coordinator that a verb holds, and for results on this side of the wire.
// Threads: any.
#pragma once

#include <filesystem>
#include <functional>

#include "cli/api_client.h"
#include "scheduler/api/model_tools.h"

namespace lepton::cli {

api::ModelTools MakeModelTools();

// Writes the model that the coordinator has under `base` ("/v1/models/digits/versions/3" or
// "/v1/jobs/j1") into `folder`, as it is stored: the manifest and the files that it names. `saved`
// hears of each with its bytes.
Status SaveModel(ApiClient& client, const std::string& base, const std::filesystem::path& folder,
                 const std::function<void(const std::filesystem::path&, size_t)>& saved = {});

// Makes `file`, and file + ".data" when the weights are large, from what the coordinator has under
// `base`. The work is done here, so that large
// models do not pass through the coordinator's memory as ONNX.
Status ExportModel(ApiClient& client, const std::string& base, const std::filesystem::path& file);

// The same as a Hugging Face folder. kFailedPrecondition for architectures without such a form.
Status ExportModelFolder(ApiClient& client, const std::string& base,
                         const std::filesystem::path& folder);
bool HasFolderForm(const std::string& arch);

// A Hugging Face folder as an archive, to upload it; looked at before. kResourceExhausted above
// `limit_bytes`.
Result<std::string> PackModelFolder(const std::filesystem::path& folder, uint64_t limit_bytes);

}  // namespace lepton::cli
