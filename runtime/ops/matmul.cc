#include "runtime/ops/matmul.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Matmul final : public DifferentiableOp {
 public:
  Matmul() : DifferentiableOp("matmul") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    const DType dtype = inputs[0].dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"transpose_a", "transpose_b"}));
    const bool transpose_a = attributes.Int("transpose_a") != 0;
    const bool transpose_b = attributes.Int("transpose_b") != 0;
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, dtype));
    LEPTON_RETURN_IF_ERROR(transpose_b ? ExpectRank(inputs, 1, dtype, 2)
                                       : ExpectRows(inputs, 1, dtype));
    const Shape& a = inputs[0].shape;
    const Shape& b = inputs[1].shape;
    const Shape rows_a = a.WithoutAxis(a.rank() - 1);
    const Shape rows_b = b.WithoutAxis(b.rank() - 1);
    const Shape inner_a = transpose_a ? rows_a : Shape({a.back()});
    const Shape inner_b = transpose_b ? Shape({b.back()}) : rows_b;
    if (inner_a != inner_b) {
      return InvalidArgument("inner extents differ: " + a.ToString() +
                             (transpose_a ? " transposed" : "") + " times " + b.ToString() +
                             (transpose_b ? " transposed" : ""));
    }
    std::vector<int64_t> extents = transpose_a ? std::vector{a.back()} : rows_a.extents();
    extents.push_back(transpose_b ? b[0] : b.back());
    return Types{{DType::kF32, Shape(std::move(extents))}};
  }

  // With A = op(a), B = op(b): dA = dC B^T and dB = A^T dC, each transposed back when its input
  // was.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId a = node.inputs[0];
    const ValueId b = node.inputs[1];
    const bool ta = node.attributes.Int("transpose_a") != 0;
    const bool tb = node.attributes.Int("transpose_b") != 0;
    LEPTON_ASSIGN_OR_RETURN(const ValueId dc, As(graph, output_gradients[0], graph.type(a).dtype));
    const auto product = [&](ValueId x, bool tx, ValueId y, bool ty) {
      return graph.Add("matmul", {x, y},
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

const graph::Op& MatmulOp() {
  static const Matmul op;
  return op;
}

}  // namespace lepton::ops
