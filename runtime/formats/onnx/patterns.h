// What patterns are found with; see Builder::Simplify. Nodes that a pattern replaces stay in the
// graph, unused: plans leave them out.
#pragma once

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx::patterns {

struct Factors {
  double constant = 1;
  std::vector<Id> values;
};
// The factors of a product, of products within products down to `depth`.
Factors FactorsOf(Builder& b, Id y, int depth);

// The attention of which `y` is the result with its heads joined: [batch, queries, heads * size].
std::optional<Id> Attention(Builder& b, Id y);

}  // namespace lepton::onnx::patterns
