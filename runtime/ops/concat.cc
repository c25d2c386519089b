#include "runtime/ops/concat.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Concat final : public DifferentiableOp {
 public:
  Concat() : DifferentiableOp("concat") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.empty()) return InvalidArgument("has no inputs; must have at least one");
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
    const int64_t axis = attributes.Int("axis");
    const Shape& first = inputs[0].shape;
    if (axis < 0 || axis >= first.rank()) {
      return InvalidArgument("axis is " + std::to_string(axis) + "; must be an axis of " +
                             first.ToString());
    }
    std::vector<int64_t> extents = first.extents();
    extents[axis] = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::vector<int64_t> wanted = first.extents();
      if (inputs[i].shape.rank() == first.rank()) {
        wanted[axis] = inputs[i].shape[static_cast<int>(axis)];
      }
      LEPTON_RETURN_IF_ERROR(ExpectType(inputs, i, {inputs[0].dtype, Shape(wanted)}));
      if (wanted[axis] == Shape::kBatch) {
        return InvalidArgument("input " + std::to_string(i) + " is " + inputs[i].ToString() +
                               "; the axis to join along must not be open");
      }
      extents[axis] += wanted[axis];
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const int64_t axis = node.attributes.Int("axis");
    Gradients gradients;
    int64_t begin = 0;
    for (const ValueId input : node.inputs) {
      const int64_t end = begin + graph.type(input).shape[static_cast<int>(axis)];
      LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                              graph.Add("slice", {output_gradients[0]},
                                        {{"axis", axis}, {"begin", begin}, {"end", end}}));
      gradients.push_back(dx);
      begin = end;
    }
    return gradients;
  }
};

}  // namespace

const graph::Op& ConcatOp() {
  static const Concat op;
  return op;
}

}  // namespace lepton::ops
