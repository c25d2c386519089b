#include "runtime/ops/gather.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Result<Shape> GatheredShape(const Shape& x, const Shape& indices, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
  const int64_t axis = attributes.Int("axis");
  if (axis < 0 || axis >= x.rank()) {
    return InvalidArgument("axis is " + std::to_string(axis) + "; must be an axis of " +
                           x.ToString());
  }
  std::vector<int64_t> extents = x.extents();
  extents.erase(extents.begin() + axis);
  extents.insert(extents.begin() + axis, indices.extents().begin(), indices.extents().end());
  return Shape(std::move(extents));
}

class Gather final : public DifferentiableOp {
 public:
  Gather() : DifferentiableOp("gather") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, DType::kI32));
    LEPTON_ASSIGN_OR_RETURN(Shape shape,
                            GatheredShape(inputs[0].shape, inputs[1].shape, attributes));
    return Types{{inputs[0].dtype, std::move(shape)}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy, As(graph, output_gradients[0], DType::kF32));
    LEPTON_ASSIGN_OR_RETURN(
        const ValueId dx,
        graph.Add("gather_grad", {dy, node.inputs[1], node.inputs[0]}, node.attributes));
    return Gradients{dx, kNoValue};
  }
};

class GatherGrad final : public OpWithoutGradient {
 public:
  GatherGrad() : OpWithoutGradient("gather_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, DType::kI32));
    LEPTON_ASSIGN_OR_RETURN(Shape shape,
                            GatheredShape(inputs[2].shape, inputs[1].shape, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 0, {DType::kF32, std::move(shape)}));
    return Types{{DType::kF32, inputs[2].shape}};
  }
};

}  // namespace

const graph::Op& GatherOp() {
  static const Gather op;
  return op;
}

const graph::Op& GatherGradOp() {
  static const GatherGrad op;
  return op;
}

}  // namespace lepton::ops
