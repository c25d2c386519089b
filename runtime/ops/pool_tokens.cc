#include "runtime/ops/pool_tokens.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Status CheckPool(std::span<const TensorType> inputs, size_t x, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, x, DType::kF32, 3));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"kind"}));
  const std::string kind = attributes.Text("kind");
  if (kind != "first" && kind != "mean" && kind != "last") {
    return InvalidArgument("kind is '" + kind + "'; must be first, mean or last");
  }
  if (inputs.size() == x + 1) return Status::Ok();
  const Shape& shape = inputs[x].shape;
  return ExpectType(inputs, x + 1, {DType::kF32, Shape({shape[0], shape[1]})});
}

Shape PooledShape(const Shape& x) {
  return Shape({x[0], x[2]});
}

class PoolTokens final : public DifferentiableOp {
 public:
  PoolTokens() : DifferentiableOp("pool_tokens") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 2) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(CheckPool(inputs, 0, attributes));
    return Types{{DType::kF32, PooledShape(inputs[0].shape)}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    std::vector<ValueId> inputs = node.inputs;
    inputs.insert(inputs.begin(), output_gradients[0]);
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("pool_tokens_grad", std::move(inputs), node.attributes));
    Gradients gradients{dx};
    gradients.resize(node.inputs.size(), kNoValue);
    return gradients;
  }
};

class PoolTokensGrad final : public OpWithoutGradient {
 public:
  PoolTokensGrad() : OpWithoutGradient("pool_tokens_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 3) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(CheckPool(inputs, 1, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 0, {DType::kF32, PooledShape(inputs[1].shape)}));
    return Types{inputs[1]};
  }
};

}  // namespace

const graph::Op& PoolTokensOp() {
  static const PoolTokens op;
  return op;
}

const graph::Op& PoolTokensGradOp() {
  static const PoolTokensGrad op;
  return op;
}

}  // namespace lepton::ops
