// How long a text an imported graph takes: it looks places up in tables that have an end.
#pragma once

#include "runtime/graph/graph.h"

namespace lepton::nn {

// The most tokens for which each place of the sequence is in every table that is indexed by it;
// 0: no such table is found. Places are counted, or are sums of a mask's ones along the sequence.
int64_t ContextOf(const graph::Graph& graph);

}  // namespace lepton::nn
