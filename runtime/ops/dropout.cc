#include "runtime/ops/dropout.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Dropout final : public PointwiseOp {
 public:
  Dropout() : PointwiseOp("dropout") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"rate", "stream"}));
    const double rate = attributes.Float("rate");
    if (!(rate >= 0 && rate < 1)) {
      return InvalidArgument("rate is " + std::to_string(rate) + "; must be in [0, 1)");
    }
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("dropout", {output_gradients[0]}, node.attributes));
    return Gradients{dx};
  }
};

}  // namespace

const graph::Op& DropoutOp() {
  static const Dropout op;
  return op;
}

}  // namespace lepton::ops
