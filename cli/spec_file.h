// A job spec from a file, ready to send: checked, and with a dataset path that is relative to the
// spec's own folder ("uri: digits.csv") made into an absolute file:// URI.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>

#include "runtime/spec/job_spec.h"

namespace lepton::cli {

struct SpecFile {
  nlohmann::json document;  // as written, but for the URI
  spec::JobSpec spec;
  std::filesystem::path data_folder;  // of a file:// dataset, else empty
};
// Errors start with the file's name.
Result<SpecFile> LoadSpecFile(const std::string& path);

}  // namespace lepton::cli
