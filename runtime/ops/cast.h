// cast(x; to): f32 to bf16 (to the nearest, ties to even) or bf16 to f32 (exact). The gradient
// passes through unchanged: gradients are f32 on both sides.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& CastOp();
}  // namespace lepton::ops
