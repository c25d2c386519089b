#include "runtime/ops/batch_matmul.h"

#include <algorithm>

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class BatchMatmul final : public DifferentiableOp {
 public:
  BatchMatmul() : DifferentiableOp("batch_matmul") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    const DType dtype = inputs[0].dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, dtype));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 1, dtype));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"transpose_a", "transpose_b"}));
    const bool transpose_a = attributes.Int("transpose_a") != 0;
    const bool transpose_b = attributes.Int("transpose_b") != 0;
    const Shape& a = inputs[0].shape;
    const Shape& b = inputs[1].shape;
    const int last = a.rank() - 1;
    if (a.rank() != b.rank() ||
        !std::equal(a.extents().begin(), a.extents().end() - 2, b.extents().begin()) ||
        a[transpose_a ? last - 1 : last] != b[transpose_b ? last : last - 1]) {
      return InvalidArgument("leading or inner extents differ: " + a.ToString() +
                             (transpose_a ? " transposed" : "") + " times " + b.ToString() +
                             (transpose_b ? " transposed" : ""));
    }
    std::vector<int64_t> extents = a.extents();
    extents[last - 1] = a[transpose_a ? last : last - 1];
    extents[last] = b[transpose_b ? last - 1 : last];
    return Types{{DType::kF32, Shape(std::move(extents))}};
  }

  // As for matmul.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId a = node.inputs[0];
    const ValueId b = node.inputs[1];
    const bool ta = node.attributes.Int("transpose_a") != 0;
    const bool tb = node.attributes.Int("transpose_b") != 0;
    LEPTON_ASSIGN_OR_RETURN(const ValueId dc, As(graph, output_gradients[0], graph.type(a).dtype));
    const auto product = [&](ValueId x, bool tx, ValueId y, bool ty) {
      return graph.Add("batch_matmul", {x, y},
                       {{"transpose_a", int64_t{tx}}, {"transpose_b", int64_t{ty}}});
    };
    LEPTON_ASSIGN_OR_RETURN(const ValueId da,
                            ta ? product(b, tb, dc, true) : product(dc, false, b, !tb));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db,
                            tb ? product(dc, true, a, ta) : product(a, !ta, dc, false));
    return Gradients{da, db};
  }
};

}  // namespace

const graph::Op& BatchMatmulOp() {
  static const BatchMatmul op;
  return op;
}

}  // namespace lepton::ops
