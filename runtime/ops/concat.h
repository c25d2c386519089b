// concat(x, ...; axis): inputs of one type, equal but along an axis that is not open, one after the
// other along it. To split, use slices.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& ConcatOp();
}  // namespace lepton::ops
