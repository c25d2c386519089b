#include "runtime/ops/broadcast_to.h"

#include <algorithm>

namespace lepton::ops {
namespace {

Result<Shape> BroadcastShape(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  std::vector<int64_t> extents(rank);
  for (int axis = 0; axis < rank; ++axis) {
    const int in_a = axis - (rank - a.rank());
    const int in_b = axis - (rank - b.rank());
    const int64_t x = in_a < 0 ? 1 : a[in_a];
    const int64_t y = in_b < 0 ? 1 : b[in_b];
    if (x != y && x != 1 && y != 1) {
      return InvalidArgument("shapes " + a.ToString() + " and " + b.ToString() +
                             " do not broadcast");
    }
    extents[axis] = x == 1 ? y : x;
  }
  return Shape(std::move(extents));
}

// kInvalidArgument unless `small` repeats to `large`.
Status ExpectRepeats(const Shape& small, const Shape& large) {
  LEPTON_ASSIGN_OR_RETURN(const Shape both, BroadcastShape(small, large));
  if (both == large) return Status::Ok();
  return InvalidArgument("shape " + small.ToString() + " does not repeat to " + large.ToString());
}

Status ExpectValueAndLike(std::span<const TensorType> inputs, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kF32));
  return ExpectFloat(inputs, 1);
}

class BroadcastTo final : public DifferentiableOp {
 public:
  BroadcastTo() : DifferentiableOp("broadcast_to") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectValueAndLike(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectRepeats(inputs[0].shape, inputs[1].shape));
    return Types{{DType::kF32, inputs[1].shape}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            SumToShapeOf(graph, output_gradients[0], node.inputs[0]));
    return Gradients{dx, kNoValue};
  }
};

class SumTo final : public DifferentiableOp {
 public:
  SumTo() : DifferentiableOp("sum_to") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectValueAndLike(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectRepeats(inputs[1].shape, inputs[0].shape));
    return Types{{DType::kF32, inputs[1].shape}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("broadcast_to", {output_gradients[0], node.inputs[0]}));
    return Gradients{dx, kNoValue};
  }
};

}  // namespace

Result<Types> InferBroadcast(std::span<const TensorType> inputs, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, inputs[0].dtype));
  LEPTON_ASSIGN_OR_RETURN(Shape shape, BroadcastShape(inputs[0].shape, inputs[1].shape));
  return Types{{inputs[0].dtype, std::move(shape)}};
}

Result<ValueId> SumToShapeOf(Graph& graph, ValueId gradient, ValueId input) {
  if (graph.type(gradient).shape == graph.type(input).shape) return gradient;
  LEPTON_ASSIGN_OR_RETURN(gradient, As(graph, gradient, DType::kF32));
  return graph.Add("sum_to", {gradient, input});
}

Result<ValueId> GradientLike(Graph& graph, ValueId gradient, const Node& node) {
  return As(graph, gradient, graph.type(node.inputs[0]).dtype);
}

const graph::Op& BroadcastToOp() {
  static const BroadcastTo op;
  return op;
}

const graph::Op& SumToOp() {
  static const SumTo op;
  return op;
}

}  // namespace lepton::ops
