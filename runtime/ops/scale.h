// scale(x; factor) = factor * x.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& ScaleOp();
}  // namespace lepton::ops
