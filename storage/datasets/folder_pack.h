// A folder of pictures as one tar archive, to upload it.
// Threads: pure function.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/base/status.h"

namespace lepton::storage {

// The pictures below the folder, in order of path; other files stay behind. kInvalidArgument names
// a symbolic link; kResourceExhausted above `limit_bytes`.
Result<std::string> PackFolder(const std::filesystem::path& folder, uint64_t limit_bytes);

}  // namespace lepton::storage
