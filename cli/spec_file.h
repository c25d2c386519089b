// A job spec from a file, ready to send: checked, and with paths of data that are relative to the
// spec's own folder ("uri: digits.csv") made into absolute file:// URIs, and
// the path of model.onnx made absolute.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/spec/job_spec.h"

namespace lepton::cli {

struct SpecFile {
  nlohmann::json document;  // as written, but for the URI
  spec::JobSpec spec;
  std::vector<std::filesystem::path> data_folders;  // of datasets, tokenizers and models
  std::vector<std::filesystem::path> inputs;        // those themselves, where they are files here
};
// Errors start with the file's name.
Result<SpecFile> LoadSpecFile(const std::string& path);

}  // namespace lepton::cli
