// What patterns are found with; see Builder::Simplify. Nodes that a pattern replaces stay in the
// graph, unused: plans leave them out.
#pragma once

#include <functional>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx::patterns {

struct Factors {
  double constant = 1;
  std::vector<Id> values;
};
// The factors of a product, of products within products down to `depth`.
Factors FactorsOf(Builder& b, Id y, int depth);

// The attention of which `y` is the result with its heads joined: [batch, queries, heads * size],
// or with [queries, batch, ..] as the library of PyTorch has it.
std::optional<Id> Attention(Builder& b, Id y);
// `y` [batch, queries, ..], of which the rows were computed as [queries, batch, ..] from an
// attention's: without turning these.
std::optional<Id> AttentionRows(Builder& b, Id y);

// What an element of a mask must be, for a key that its query sees or one that it does not.
using MaskElement = std::function<bool(double element, bool seen)>;
// Whether a mask [1.., queries, keys] lets each query see the keys up to its own place and no
// others: of an open sequence, for every length that it may have.
bool IsCausal(Builder& b, Id mask, const MaskElement& fits);

}  // namespace lepton::onnx::patterns
