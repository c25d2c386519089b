#include "runtime/ops/scale.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Scale final : public PointwiseOp {
 public:
  Scale() : PointwiseOp("scale") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"factor"}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("scale", {output_gradients[0]}, node.attributes));
    return Gradients{dx};
  }
};

}  // namespace

const graph::Op& ScaleOp() {
  static const Scale op;
  return op;
}

}  // namespace lepton::ops
