// What changes of a gang's membership cost, for people. Threads: one.
#pragma once

#include <string>

#include "runtime/base/json.h"

namespace lepton::cli {

// A table of a job's recoveries, in milliseconds; empty when there were none.
std::string RecoveriesTable(const nlohmann::json& job);

}  // namespace lepton::cli
