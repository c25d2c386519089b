#include "runtime/ops/reduce.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Status CheckAxis(const Shape& shape, int64_t axis) {
  if (axis >= 0 && axis < shape.rank()) return Status::Ok();
  return InvalidArgument("axis is " + std::to_string(axis) + "; must be an axis of " +
                         shape.ToString());
}

class Reduce final : public DifferentiableOp {
 public:
  Reduce() : DifferentiableOp("reduce") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "kind"}));
    const int64_t axis = attributes.Int("axis");
    LEPTON_RETURN_IF_ERROR(CheckAxis(inputs[0].shape, axis));
    const std::string kind = attributes.Text("kind");
    if (kind != "sum" && kind != "mean") {
      return InvalidArgument("kind is '" + kind + "'; must be sum or mean");
    }
    return Types{{DType::kF32, inputs[0].shape.WithoutAxis(static_cast<int>(axis))}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const int64_t axis = node.attributes.Int("axis");
    const bool mean = node.attributes.Text("kind") == "mean";
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("expand", {output_gradients[0], node.inputs[0]},
                                      {{"axis", axis}, {"divide", int64_t{mean}}}));
    return Gradients{dx};
  }
};

class Expand final : public DifferentiableOp {
 public:
  Expand() : DifferentiableOp("expand") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "divide"}));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 1));
    const int64_t axis = attributes.Int("axis");
    LEPTON_RETURN_IF_ERROR(CheckAxis(inputs[1].shape, axis));
    LEPTON_RETURN_IF_ERROR(
        ExpectType(inputs, 0, {DType::kF32, inputs[1].shape.WithoutAxis(static_cast<int>(axis))}));
    return Types{{DType::kF32, inputs[1].shape}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const bool mean = node.attributes.Int("divide") != 0;
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx, graph.Add("reduce", {output_gradients[0]},
                                                        {{"axis", node.attributes.Int("axis")},
                                                         {"kind", mean ? "mean" : "sum"}}));
    return Gradients{dx, kNoValue};
  }
};

}  // namespace

const graph::Op& ReduceOp() {
  static const Reduce op;
  return op;
}

const graph::Op& ExpandOp() {
  static const Expand op;
  return op;
}

}  // namespace lepton::ops
