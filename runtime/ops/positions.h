// positions(tokens i32 [.., s]; offset, limit) -> i32 [s]: offset, offset + 1, ..: the rows of a
// table of position embeddings. limit: rows of the table; longer texts are refused when the graph
// is planned for them. 0: no limit.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& PositionsOp();
}  // namespace lepton::ops
