#include "runtime/ops/slice.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Result<Shape> SlicedShape(const Shape& shape, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "begin", "end", "step"}));
  const int64_t axis = attributes.Int("axis");
  if (axis < 0 || axis >= shape.rank() || shape[static_cast<int>(axis)] < 0) {
    return InvalidArgument("axis is " + std::to_string(axis) + "; must be an axis of " +
                           shape.ToString() + " that is not open");
  }
  const int64_t extent = shape[static_cast<int>(axis)];
  const int64_t begin = attributes.Int("begin");
  const int64_t end = attributes.Int("end");
  const int64_t step = attributes.Int("step", 1);
  if (begin < 0 || end > extent || begin >= end || step < 1) {
    return InvalidArgument("begin " + std::to_string(begin) + ", end " + std::to_string(end) +
                           ", step " + std::to_string(step) + ": must be 0 <= begin < end <= " +
                           std::to_string(extent) + " and step >= 1");
  }
  std::vector<int64_t> extents = shape.extents();
  extents[axis] = (end - begin + step - 1) / step;
  return Shape(std::move(extents));
}

class Slice final : public DifferentiableOp {
 public:
  Slice() : DifferentiableOp("slice") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, SlicedShape(inputs[0].shape, attributes));
    return Types{{inputs[0].dtype, std::move(shape)}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy, As(graph, output_gradients[0], DType::kF32));
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("slice_grad", {dy, node.inputs[0]}, node.attributes));
    return Gradients{dx};
  }
};

class SliceGrad final : public OpWithoutGradient {
 public:
  SliceGrad() : OpWithoutGradient("slice_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, SlicedShape(inputs[1].shape, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 0, {DType::kF32, std::move(shape)}));
    return Types{{DType::kF32, inputs[1].shape}};
  }
};

}  // namespace

const graph::Op& SliceOp() {
  static const Slice op;
  return op;
}

const graph::Op& SliceGradOp() {
  static const SliceGrad op;
  return op;
}

}  // namespace lepton::ops
