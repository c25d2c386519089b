#include "runtime/ops/transpose.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Transpose final : public DifferentiableOp {
 public:
  Transpose() : DifferentiableOp("transpose") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"perm"}));
    const Shape& shape = inputs[0].shape;
    const std::vector<int64_t> perm = attributes.Ints("perm");
    std::vector<bool> seen(shape.rank());
    std::vector<int64_t> extents;
    for (const int64_t axis : perm) {
      if (axis < 0 || axis >= shape.rank() || seen[axis]) break;
      seen[axis] = true;
      extents.push_back(shape[static_cast<int>(axis)]);
    }
    if (extents.size() != perm.size() || static_cast<int>(perm.size()) != shape.rank()) {
      return InvalidArgument("perm must name every axis of " + shape.ToString() + " once");
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const std::vector<int64_t> perm = node.attributes.Ints("perm");
    std::vector<int64_t> inverse(perm.size());
    for (size_t i = 0; i < perm.size(); ++i) inverse[perm[i]] = static_cast<int64_t>(i);
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("transpose", {output_gradients[0]}, {{"perm", inverse}}));
    return Gradients{dx};
  }
};

}  // namespace

const graph::Op& TransposeOp() {
  static const Transpose op;
  return op;
}

}  // namespace lepton::ops
