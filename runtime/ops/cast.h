// cast(x; to): f32 to bf16 (to the nearest, ties to even) or bf16 to f32 (exact). The gradient of
// a rounded value is rounded too, unless the value is a parameter.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& CastOp();
}  // namespace lepton::ops
