// precision: int8 for graphs that come from elsewhere (ONNX): products and convolutions of f32
// whose right side is a parameter become those of 8-bit integers (runtime/ops/matmul_int8.h,
// conv2d_int8.h). Others stay: products of two activations, grouped convolutions, which have no
// fast kernel in 8 bits, and weights that are computed. Threads: one, before the graph is planned.
#pragma once

#include "runtime/graph/graph.h"

namespace lepton::nn {

// How many nodes it replaced. Errors are the ops' own.
Result<int> QuantizeProducts(graph::Graph& graph);

}  // namespace lepton::nn
