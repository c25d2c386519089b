// The ops of this folder. Threads: the list is immutable.
#pragma once

#include <vector>

#include "runtime/graph/op.h"

namespace lepton::ops::general {

std::vector<const graph::Op*> GeneralOps();

}  // namespace lepton::ops::general
