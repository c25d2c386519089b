// What an op means, apart from how it is computed (kernel_table.h). One subclass per op lives in
// runtime/ops; a graph is made over a set of them.
// Threads: ops are stateless and immutable.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/graph/attributes.h"
#include "runtime/tensor/shape.h"

namespace lepton::graph {

class Graph;
struct Node;
using NodeId = int32_t;
using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

class Op {
 public:
  virtual ~Op() = default;

  virtual std::string_view name() const = 0;

  // Checks the inputs and attributes and gives the types of the outputs. Shapes may be open: an
  // extent kBatch equals only itself. kInvalidArgument says which input is wrong and what it must
  // be; the graph adds the node's name.
  virtual Result<std::vector<TensorType>> Infer(std::span<const TensorType> inputs,
                                                const Attributes& attributes) const = 0;

  // False for integer-valued ops and for the gradient ops themselves (no second derivatives).
  virtual bool differentiable() const = 0;

  // True when element i of the only output follows from element i of each input (repeated where an
  // input is smaller): such a node can run block by block with others (passes/fusion.h).
  virtual bool pointwise() const { return false; }

  // Emits into `graph` the nodes that turn the gradients of the node's outputs (kNoValue where the
  // objective does not depend on one) into the gradients of its inputs, one per input, kNoValue
  // for inputs without gradient. A gradient is f32 or of the type of its value. Nodes whose result
  // nobody asks for are removed later, so emit them all.
  // Only called when differentiable().
  virtual Result<std::vector<ValueId>> Gradient(
      Graph& graph, const Node& node, std::span<const ValueId> output_gradients) const = 0;

  // True where a node's outputs can be made once more for about one pass over memory, so that a
  // backward pass need not keep them (recomputation.h).
  virtual bool cheap_again() const { return false; }
  // Emits the nodes that do so, of the same bits, from `inputs` (the node's, or what was made again
  // of them) and from such outputs of the node as its gradient reads too: one value per output,
  // kNoValue for an output that is not made again. Only called when cheap_again(); by default the
  // same node once more.
  virtual Result<std::vector<ValueId>> Again(Graph& graph, NodeId node,
                                             std::vector<ValueId> inputs) const;
};

// The known ops, by name.
class OpSet {
 public:
  explicit OpSet(std::vector<const Op*> ops) : ops_(std::move(ops)) {}
  const Op* Find(std::string_view name) const;  // null when unknown
  std::span<const Op* const> ops() const { return ops_; }

 private:
  std::vector<const Op*> ops_;
};

}  // namespace lepton::graph
