// pool_tokens(x [b, s, n], optional mask [b, s]; kind) -> y [b, n]: one row for each text. kind:
// "first" or "last" takes a token's row, "mean" the mean of all. With a mask only those tokens
// count where it is above -1 (0 for a token, about -1e9 for padding); a text without any counts as
// its first token. The mask gets no gradient.
// Gradient: pool_tokens_grad(dy, like x, [mask]).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& PoolTokensOp();
const graph::Op& PoolTokensGradOp();
}  // namespace lepton::ops
