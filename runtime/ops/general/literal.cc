#include "runtime/ops/general/literal.h"

#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

class Constant final : public OpWithoutGradient {
 public:
  Constant() : OpWithoutGradient("constant") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"dtype", "shape", "data"}));
    const std::string name = attributes.Text("dtype");
    for (int i = 0; i < kDTypes; ++i) {
      TensorType type{static_cast<DType>(i), Shape(attributes.Ints("shape"))};
      if (DTypeName(type.dtype) != name) continue;
      if (type.shape.open() || type.bytes() != attributes.Text("data").size()) {
        return InvalidArgument("data does not have the bytes of " + type.ToString());
      }
      return Types{std::move(type)};
    }
    return InvalidArgument("dtype: no type named '" + name + "'");
  }
};

class IndexRange final : public OpWithoutGradient {
 public:
  IndexRange() : OpWithoutGradient("index_range") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
    LEPTON_ASSIGN_OR_RETURN(const int axis,
                            ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()));
    return Types{{DType::kI32, Shape({inputs[0].shape[axis]})}};
  }
};

class Repeat final : public DifferentiableOp {
 public:
  Repeat() : DifferentiableOp("repeat") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"shape", "marks", "axes"}));
    const std::vector<int64_t> marks = attributes.Ints("marks"), axes = attributes.Ints("axes");
    if (marks.size() != axes.size() || inputs.size() != marks.size() + 1) {
      return InvalidArgument("must have an input, a mark and an axis per open extent");
    }
    std::vector<int64_t> extents = attributes.Ints("shape");
    for (int64_t& extent : extents) {
      for (size_t k = 0; k < marks.size() && extent < 0; ++k) {
        if (extent != marks[k]) continue;
        LEPTON_ASSIGN_OR_RETURN(const int axis, ResolveAxis(axes[k], inputs[k + 1].shape.rank()));
        extent = inputs[k + 1].shape[axis];
        break;
      }
    }
    const Shape shape(std::move(extents));
    LEPTON_ASSIGN_OR_RETURN(const Shape both, BroadcastShape(inputs[0].shape, shape));
    if (both != shape) {
      return InvalidArgument(inputs[0].ToString() + " does not repeat to " + shape.ToString());
    }
    return Types{{inputs[0].dtype, shape}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    Gradients gradients(node.inputs.size(), kNoValue);
    if (graph.type(node.inputs[0]).dtype != DType::kF32) return gradients;
    gradients[0] = output_gradients[0];
    if (graph.type(node.inputs[0]).shape != graph.type(output_gradients[0]).shape) {
      LEPTON_ASSIGN_OR_RETURN(gradients[0],
                              graph.Add("sum_to", {output_gradients[0], node.inputs[0]}));
    }
    return gradients;
  }
};

}  // namespace

const graph::Op& ConstantOp() {
  static const Constant op;
  return op;
}

const graph::Op& IndexRangeOp() {
  static const IndexRange op;
  return op;
}

const graph::Op& RepeatOp() {
  static const Repeat op;
  return op;
}

}  // namespace lepton::ops::general
