// The one list of ops. To add an op: README.md.
// Threads: immutable.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {

const graph::OpSet& OpList();

}  // namespace lepton::ops
