// fill(like; value): an f32 tensor of like's shape, all `value`. The seed of a gradient.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& FillOp();
}  // namespace lepton::ops
