#include "runtime/ops/add.h"

#include "runtime/ops/broadcast_to.h"

namespace lepton::ops {
namespace {

class Add final : public PointwiseOp {
 public:
  Add() : PointwiseOp("add") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    return InferBroadcast(inputs, attributes);
  }

  bool cheap_again() const override { return true; }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId dy = output_gradients[0];
    const ValueId by_a = dy;
    const ValueId by_b = dy;
    LEPTON_ASSIGN_OR_RETURN(const ValueId da, SumToShapeOf(graph, by_a, node.inputs[0]));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db, SumToShapeOf(graph, by_b, node.inputs[1]));
    return Gradients{da, db};
  }
};

}  // namespace

const graph::Op& AddOp() {
  static const Add op;
  return op;
}

}  // namespace lepton::ops
