// Which files of a folder are pictures. Private to storage/datasets.
// Threads: pure function.
#pragma once

#include <string>

#include "runtime/base/status.h"

namespace lepton::storage {

// By the suffix: PNG and JPEG are; hidden files and what is no picture are not. kInvalidArgument
// for a picture of a format that cannot be read, rather than leave it out in silence.
Result<bool> IsPictureName(const std::string& path);

}  // namespace lepton::storage
