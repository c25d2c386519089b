// JSON that others send.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/base/json.h"
#include "runtime/base/status.h"

namespace lepton {

inline constexpr size_t kMostJsonLevels = 64;

// Whether arrays and objects are nested deeper than `levels`; of text that is not JSON, some
// answer.
bool NestedDeeper(std::string_view text, size_t levels);

// kInvalidArgument for what is not JSON, saying where, and for arrays and objects nested deeper
// than `most_levels`: to copy a value and to write it takes stack for each level.
Result<nlohmann::json> ParseJson(std::string_view text, size_t most_levels = kMostJsonLevels);

}  // namespace lepton
