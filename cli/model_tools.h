// ONNX for the coordinator that a verb holds, and for results on this side of the wire.
// Threads: any.
#pragma once

#include <filesystem>

#include "cli/api_client.h"
#include "scheduler/api/model_tools.h"

namespace lepton::cli {

api::ModelTools MakeModelTools();

// Makes `file`, and file + ".data" when the weights are large, from what the coordinator has under
// `base` ("/v1/models/digits/versions/3" or "/v1/jobs/j1"). The work is done here, so that large
// models do not pass through the coordinator's memory as ONNX.
Status ExportModel(ApiClient& client, const std::string& base, const std::filesystem::path& file);

}  // namespace lepton::cli
