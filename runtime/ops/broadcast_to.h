// Element-wise ops over inputs of unequal shapes, and the two ops that their gradients are made of.
// Shapes meet aligned at the last axis; an extent of 1, or a missing one, repeats. An open extent
// meets itself and 1.
//
// broadcast_to(x, like) -> x repeated to the shape of `like`. Gradient: sum_to.
// sum_to(x, like) -> x summed over the axes along which `like` would repeat to x's shape. Both are
// f32, whatever the type of `like`.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops {

const graph::Op& BroadcastToOp();
const graph::Op& SumToOp();

// The rule of an element-wise op of two inputs, both f32 or both bf16.
Result<Types> InferBroadcast(std::span<const TensorType> inputs, const Attributes& attributes);

// `gradient`, of the broadcast shape, as the gradient of `input`: sum_to where the shapes differ.
Result<ValueId> SumToShapeOf(Graph& graph, ValueId gradient, ValueId input);
// `gradient` in the type of the node's inputs.
Result<ValueId> GradientLike(Graph& graph, ValueId gradient, const Node& node);

}  // namespace lepton::ops
