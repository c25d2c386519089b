#include "runtime/ops/pool2d.h"

#include "runtime/ops/op_base.h"
#include "runtime/ops/window.h"

namespace lepton::ops {
namespace {

Result<TensorType> Pooled(std::span<const TensorType> inputs, size_t x_index, bool average,
                          const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, x_index, DType::kF32, 4));
  LEPTON_RETURN_IF_ERROR(
      average ? attributes.CheckNames({"kernel", "strides", "pads", "dilations", "include_pad"})
              : attributes.CheckNames({"kernel", "strides", "pads", "dilations"}));
  const Shape& x = inputs[x_index].shape;
  const std::vector<int64_t> kernel = attributes.Ints("kernel");
  if (kernel.size() != 2) return InvalidArgument("kernel must be two numbers");
  LEPTON_RETURN_IF_ERROR(CheckWindow(kernel[0], kernel[1], x, attributes));
  const Window window = MakeWindow(kernel[0], kernel[1], attributes);
  for (const WindowAxis& axis : {window.h, window.w}) {
    // With dilation, a window could otherwise step over all of a small image.
    if (axis.before >= axis.extent || axis.after >= axis.extent) {
      return InvalidArgument("pads must be smaller than the kernel");
    }
  }
  return TensorType{DType::kF32, {x[0], x[1], window.h.Outputs(x[2]), window.w.Outputs(x[3])}};
}

class Pool : public DifferentiableOp {
 public:
  Pool(std::string_view name, bool average) : DifferentiableOp(name), average_(average) {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_ASSIGN_OR_RETURN(TensorType y, Pooled(inputs, 0, average_, attributes));
    return Types{std::move(y)};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId x = node.inputs[0];
    const ValueId dy = output_gradients[0];
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            average_ ? graph.Add("average_pool2d_grad", {dy, x}, node.attributes)
                                     : graph.Add("max_pool2d_grad", {x, dy}, node.attributes));
    return Gradients{dx};
  }

 private:
  const bool average_;
};

class PoolGrad : public OpWithoutGradient {
 public:
  PoolGrad(std::string_view name, bool average) : OpWithoutGradient(name), average_(average) {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    const size_t x = average_ ? 1 : 0;
    LEPTON_ASSIGN_OR_RETURN(const TensorType y, Pooled(inputs, x, average_, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1 - x, y));
    return Types{inputs[x]};
  }

 private:
  const bool average_;
};

struct MaxPool2d final : Pool {
  MaxPool2d() : Pool("max_pool2d", false) {}
};
struct MaxPool2dGrad final : PoolGrad {
  MaxPool2dGrad() : PoolGrad("max_pool2d_grad", false) {}
};
struct AveragePool2d final : Pool {
  AveragePool2d() : Pool("average_pool2d", true) {}
};
struct AveragePool2dGrad final : PoolGrad {
  AveragePool2dGrad() : PoolGrad("average_pool2d_grad", true) {}
};

}  // namespace

const graph::Op& MaxPool2dOp() {
  static const MaxPool2d op;
  return op;
}

const graph::Op& MaxPool2dGradOp() {
  static const MaxPool2dGrad op;
  return op;
}

const graph::Op& AveragePool2dOp() {
  static const AveragePool2d op;
  return op;
}

const graph::Op& AveragePool2dGradOp() {
  static const AveragePool2dGrad op;
  return op;
}

}  // namespace lepton::ops
