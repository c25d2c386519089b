// bias_add(x [.., n], bias [n]): the bias added to every row of the last axis.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& BiasAddOp();
}  // namespace lepton::ops
