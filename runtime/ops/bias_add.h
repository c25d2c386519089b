// bias_add(x [rows, n], bias [n]): the bias added to every row.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& BiasAddOp();
}  // namespace lepton::ops
