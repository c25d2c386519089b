#include "runtime/ops/reshape.h"

#include <algorithm>

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The product of the extents that are known.
int64_t KnownElements(const std::vector<int64_t>& extents) {
  int64_t count = 1;
  for (const int64_t extent : extents) count *= extent < 0 ? 1 : extent;
  return count;
}

int64_t Count(const std::vector<int64_t>& extents, int64_t extent) {
  return std::count(extents.begin(), extents.end(), extent);
}

class Reshape final : public DifferentiableOp {
 public:
  Reshape() : DifferentiableOp("reshape") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"shape"}));
    std::vector<int64_t> extents = attributes.Ints("shape");
    const auto wrong = [](int64_t e) {
      return e < 1 && e != Shape::kBatch && e != Shape::kSequence;
    };
    if (Count(extents, Shape::kBatch) > 1 || Count(extents, Shape::kSequence) > 1 ||
        std::any_of(extents.begin(), extents.end(), wrong)) {
      return InvalidArgument("shape is " + Shape(extents).ToString() +
                             "; must be positive extents, at most one of them -1");
    }
    const auto& from = inputs[0].shape.extents();
    // A sequence keeps its place; planned, its extent is that of the place.
    const auto sequence = std::find(extents.begin(), extents.end(), Shape::kSequence);
    const size_t place = sequence - extents.begin();
    bool fits = true;
    if (sequence != extents.end()) {
      fits = place < from.size() && (from[place] > 0 || from[place] == Shape::kSequence);
      if (fits) *sequence = from[place];
    }
    const auto unknown = std::find(extents.begin(), extents.end(), Shape::kBatch);
    const bool open = Count(from, Shape::kBatch) > 0;
    const bool one_open = Count(from, Shape::kBatch) <= 1 &&
                          Count(from, Shape::kSequence) == Count(extents, Shape::kSequence);
    const int64_t elements = KnownElements(from);
    const int64_t known = KnownElements(extents);
    if (!open && unknown != extents.end() && elements % known == 0) {
      *unknown = elements / known;
    } else {
      fits = fits && elements == known && open == (unknown != extents.end());
    }
    if (!fits || !one_open) {
      return InvalidArgument(inputs[0].shape.ToString() + " cannot be reshaped to " +
                             Shape(attributes.Ints("shape")).ToString());
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
