// Glue of softmax, losses and norms.
#include <algorithm>

#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/rows.h"

namespace lepton::kernels::cuda {
namespace {

RowsShape RowsOf(const Shape& shape) {
  return {shape.rows(), shape.back()};
}
RowsShape RowsOf(const KernelContext& context) {
  return RowsOf(context.input(0).shape());
}

const float* In(const KernelContext& context, int index) {
  return context.input(index).as<float>();
}
float* Out(const KernelContext& context, int index = 0) {
  return context.output(index).as<float>();
}

template <bool logarithm>
void SoftmaxOf(const KernelContext& c, CudaDevice& device) {
  RunSoftmax(RowsOf(c), logarithm, In(c, 0), Out(c), device.stream());
}
template <bool logarithm>
void SoftmaxGradOf(const KernelContext& c, CudaDevice& device) {
  RunSoftmaxGrad(RowsOf(c), logarithm, In(c, 0), In(c, 1), Out(c), device.stream());
}

void CrossEntropyOf(const KernelContext& c, CudaDevice& device) {
  RunCrossEntropy(RowsOf(c), In(c, 0), c.input(1).as<int32_t>(), Out(c), device.stream());
}
void CrossEntropyGradOf(const KernelContext& c, CudaDevice& device) {
  RunCrossEntropyGrad(RowsOf(c), In(c, 0), c.input(1).as<int32_t>(), In(c, 2), Out(c),
                      device.stream());
}

template <RowLoss kind>
void RowLossOf(const KernelContext& c, CudaDevice& device) {
  RunRowLoss(kind, RowsOf(c), In(c, 0), In(c, 1), Out(c), device.stream());
}
template <RowLoss kind>
void RowLossGradOf(const KernelContext& c, CudaDevice& device) {
  RunRowLossGrad(kind, RowsOf(c), In(c, 0), In(c, 1), In(c, 2), Out(c), device.stream());
}

float Temperature(const KernelContext& context) {
  return static_cast<float>(context.attributes().Float("temperature", 1));
}
void DistillationOf(const KernelContext& c, CudaDevice& device) {
  RunDistillation(RowsOf(c), Temperature(c), In(c, 0), In(c, 1), Out(c), device.stream());
}
void DistillationGradOf(const KernelContext& c, CudaDevice& device) {
  RunDistillationGrad(RowsOf(c), Temperature(c), In(c, 0), In(c, 1), In(c, 2), Out(c),
                      device.stream());
}

// A norm alone, or followed by the cast of its result to bf16 (fused: the f32 result is written
// only where somebody else reads it).
class NormKernel final : public graph::Kernel {
 public:
  explicit NormKernel(const KernelRequest& request)
      : device_(DeviceOf(request)), layer_(request.op == "layer_norm") {
    if (request.followers.empty()) return;
    rounded_ = request.followers[0]->outputs[0];
    keeps_f32_ = request.kept[request.node->outputs[0]];
  }
  static bool CanRun(const KernelRequest& request) {
    if (request.followers.empty()) return true;
    const graph::Node& cast = *request.followers[0];
    return request.followers.size() == 1 && cast.op->name() == "cast" &&
           cast.inputs[0] == request.node->outputs[0];
  }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<NormKernel>(request);
  }

  void Run(const KernelContext& c) override {
    NormArguments arguments{.shape = RowsOf(c), .x = In(c, 0), .gain = In(c, 1)};
    arguments.epsilon = static_cast<float>(c.attributes().Float("epsilon", layer_ ? 1e-5 : 1e-6));
    if (layer_) {
      arguments.bias = In(c, 2);
      arguments.mean = Out(c, 1);
    }
    arguments.rstd = Out(c, layer_ ? 2 : 1);
    if (keeps_f32_) arguments.y = Out(c);
    if (rounded_ != graph::kNoValue) arguments.y_bf16 = c.value(rounded_).data;
    RunNorm(arguments, device_.stream());
  }

 private:
  CudaDevice& device_;
  const bool layer_;
  graph::ValueId rounded_ = graph::kNoValue;
  bool keeps_f32_ = true;
};

template <bool layer>
void NormGradOf(const KernelContext& c, CudaDevice& device) {
  NormGradArguments arguments{.shape = RowsOf(c), .x = In(c, 0), .gain = In(c, 1)};
  if (layer) arguments.mean = In(c, 2);
  arguments.rstd = In(c, layer ? 3 : 2);
  const TensorView& dy = c.input(layer ? 4 : 3);
  arguments.dy = dy.data;
  arguments.bf16_dy = IsBf16(dy);
  arguments.dx = Out(c, 0);
  arguments.dgain = Out(c, 1);
  if (layer) arguments.dbias = Out(c, 2);
  arguments.workspace = static_cast<float*>(c.workspace());
  RunNormGrad(arguments, device.stream());
}

size_t NormGradBytes(const KernelRequest& request) {
  return static_cast<size_t>(NormGradWorkspace(RowsOf(request.inputs[0].shape)));
}

}  // namespace

std::vector<KernelEntry> RowKernels() {
  return {
      Own<SoftmaxOf<false>>("softmax"),
      Own<SoftmaxOf<true>>("log_softmax"),
      Own<SoftmaxGradOf<false>>("softmax_grad"),
      Own<SoftmaxGradOf<true>>("log_softmax_grad"),
      Own<CrossEntropyOf>("cross_entropy"),
      Own<CrossEntropyGradOf>("cross_entropy_grad"),
      Own<RowLossOf<RowLoss::kBinaryCrossEntropy>>("binary_cross_entropy"),
      Own<RowLossGradOf<RowLoss::kBinaryCrossEntropy>>("binary_cross_entropy_grad"),
      Own<RowLossOf<RowLoss::kMeanSquaredError>>("mse"),
      Own<RowLossGradOf<RowLoss::kMeanSquaredError>>("mse_grad"),
      Own<DistillationOf>("distillation"),
      Own<DistillationGradOf>("distillation_grad"),
  };
}

std::vector<KernelEntry> NormKernels() {
  const auto grad = [](std::string_view op, auto create) {
    return CudaEntry(op, DType::kF32, "own", &AnyRequest, create);
  };
  return {
      CudaEntry("layer_norm", DType::kF32, "own", &NormKernel::CanRun, &NormKernel::Create, true),
      CudaEntry("rms_norm", DType::kF32, "own", &NormKernel::CanRun, &NormKernel::Create, true),
      grad("layer_norm_grad",
           &DeviceFunctionWithWorkspace<NormGradOf<true>, NormGradBytes>::Create),
      grad("rms_norm_grad", &DeviceFunctionWithWorkspace<NormGradOf<false>, NormGradBytes>::Create),
  };
}

}  // namespace lepton::kernels::cuda
