// Inputs for every op of runtime/ops/general, and for the moves of runtime/ops in types that
// training does not have. Threads: pure functions.
#pragma once

#include <string_view>
#include <vector>

#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {

// Of an element type; empty for an unknown op, or one that does not have the type.
std::vector<OpCase> GeneralCasesFor(std::string_view op, DType dtype, int64_t rows, int64_t n);

}  // namespace lepton::engine_test
