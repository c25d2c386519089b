#include "runtime/ops/reshape.h"

#include <algorithm>

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The product of the extents that are known.
int64_t KnownElements(const std::vector<int64_t>& extents) {
  int64_t count = 1;
  for (const int64_t extent : extents) count *= extent == Shape::kBatch ? 1 : extent;
  return count;
}

class Reshape final : public DifferentiableOp {
 public:
  Reshape() : DifferentiableOp("reshape") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"shape"}));
    std::vector<int64_t> extents = attributes.Ints("shape");
    const auto unknown = std::find(extents.begin(), extents.end(), Shape::kBatch);
    if (std::count(extents.begin(), extents.end(), Shape::kBatch) > 1 ||
        std::any_of(extents.begin(), extents.end(), [](int64_t e) { return e < 1 && e != -1; })) {
      return InvalidArgument("shape is " + Shape(extents).ToString() +
                             "; must be positive extents, at most one of them -1");
    }
    const auto& from = inputs[0].shape.extents();
    const bool open = inputs[0].shape.open();
    const bool one_open = std::count(from.begin(), from.end(), Shape::kBatch) <= 1;
    const int64_t elements = KnownElements(from);
    const int64_t known = KnownElements(extents);
    bool fits = elements == known && open == (unknown != extents.end()) && one_open;
    if (!open && unknown != extents.end() && elements % known == 0) {
      *unknown = elements / known;
      fits = true;
    }
    if (!fits) {
      return InvalidArgument(inputs[0].shape.ToString() + " cannot be reshaped to " +
                             Shape(extents).ToString());
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("reshape", {output_gradients[0]},
                                      {{"shape", graph.type(node.inputs[0]).shape.extents()}}));
    return Gradients{dx};
  }
};

}  // namespace

const graph::Op& ReshapeOp() {
  static const Reshape op;
  return op;
}

}  // namespace lepton::ops
