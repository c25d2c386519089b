// Glue of convolutions, pools and batch normalisation.
#include <algorithm>

#include "runtime/kernels/cuda/conv_arguments.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/images.h"

namespace lepton::kernels::cuda {
namespace {

ConvArguments ConvOf(const KernelContext& context, int x, int weights) {
  ConvArguments a =
      ConvArgumentsOf(x < 0 ? context.output(0).shape() : context.input(x).shape(),
                      weights < 0 ? context.output(0).shape() : context.input(weights).shape(),
                      context.attributes());
  a.bf16 = IsBf16(context.input(0));
  a.result = context.output(0).as<float>();
  return a;
}

void ConvForward(const KernelContext& c, CudaDevice& device) {
  ConvArguments a = ConvOf(c, 0, 1);
  a.x = c.input(0).data;
  a.weights = c.input(1).data;
  RunConv(a, device.stream());
}

void ConvInputGradOf(const KernelContext& c, CudaDevice& device) {
  ConvArguments a = ConvOf(c, -1, 1);
  a.y = c.input(0).data;
  a.weights = c.input(1).data;
  RunConvInputGrad(a, device.stream());
}

void ConvWeightGradOf(const KernelContext& c, CudaDevice& device) {
  ConvArguments a = ConvOf(c, 1, -1);
  a.y = c.input(0).data;
  a.x = c.input(1).data;
  RunConvWeightGrad(a, device.stream());
}

PoolArguments PoolOf(const Shape& x, const graph::Attributes& attributes, bool average) {
  const auto kernel = attributes.Ints("kernel");
  const ops::Window window = ops::MakeWindow(kernel[0], kernel[1], attributes);
  PoolArguments a;
  a.planes = x[0] * x[1];
  a.h = AxisOf(window.h, x[2]);
  a.w = AxisOf(window.w, x[3]);
  a.average = average;
  a.include_pad = attributes.Int("include_pad", 1) != 0;
  return a;
}

template <bool average>
void PoolForward(const KernelContext& c, CudaDevice& device) {
  PoolArguments a = PoolOf(c.input(0).shape(), c.attributes(), average);
  a.x = c.input(0).as<float>();
  a.y = c.output(0).as<float>();
  RunPool(a, device.stream());
}

void MaxPoolGradOf(const KernelContext& c, CudaDevice& device) {
  PoolArguments a = PoolOf(c.input(0).shape(), c.attributes(), false);
  a.x = c.input(0).as<float>();
  a.dy = c.input(1).as<float>();
  a.dx = c.output(0).as<float>();
  RunPoolGrad(a, device.stream());
}

void AveragePoolGradOf(const KernelContext& c, CudaDevice& device) {
  PoolArguments a = PoolOf(c.input(1).shape(), c.attributes(), true);
  a.dy = c.input(0).as<float>();
  a.dx = c.output(0).as<float>();
  RunPoolGrad(a, device.stream());
}

BatchNormArguments BatchNormOf(const KernelContext& c) {
  const Shape& x = c.input(0).shape();
  BatchNormArguments a;
  a.images = x[0];
  a.channels = x[1];
  a.pixels = x.elements() / std::max<int64_t>(1, x[0] * x[1]);
  a.epsilon = static_cast<float>(c.attributes().Float("epsilon", 1e-5));
  a.momentum = static_cast<float>(c.attributes().Float("momentum", 0.1));
  a.bf16 = IsBf16(c.input(0));
  a.x = c.input(0).data;
  a.gain = c.input(1).as<float>();
  return a;
}

void BatchNormForward(const KernelContext& c, CudaDevice& device) {
  BatchNormArguments a = BatchNormOf(c);
  a.training = c.attributes().Int("training") != 0;
  a.bias = c.input(2).as<float>();
  a.running_mean = c.input(3).as<float>();
  a.running_variance = c.input(4).as<float>();
  a.y = c.output(0).data;
  a.new_mean = c.output(1).as<float>();
  a.new_variance = c.output(2).as<float>();
  a.mean = c.output(3).as<float>();
  a.rstd = c.output(4).as<float>();
  RunBatchNorm(a, device.stream());
}

void BatchNormAgain(const KernelContext& c, CudaDevice& device) {
  BatchNormArguments a = BatchNormOf(c);
  a.bias = c.input(2).as<float>();
  a.mean = c.input(3).as<float>();
  a.rstd = c.input(4).as<float>();
  a.y = c.output(0).data;
  RunBatchNormApply(a, device.stream());
}

void BatchNormBackward(const KernelContext& c, CudaDevice& device) {
  BatchNormArguments a = BatchNormOf(c);
  a.training = c.attributes().Int("training") != 0;
  a.mean = c.input(2).as<float>();
  a.rstd = c.input(3).as<float>();
  a.dy = c.input(4).data;
  a.dx = c.output(0).data;
  a.dgain = c.output(1).as<float>();
  a.dbias = c.output(2).as<float>();
  RunBatchNormGrad(a, device.stream());
}

}  // namespace

std::vector<KernelEntry> ImageKernels() {
  std::vector<KernelEntry> entries = {
      Own<PoolForward<true>>("average_pool2d"),
      Own<AveragePoolGradOf>("average_pool2d_grad"),
      Own<PoolForward<false>>("max_pool2d"),
      Own<MaxPoolGradOf>("max_pool2d_grad"),
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(Own<BatchNormForward>("batch_norm", dtype));
    entries.push_back(Own<BatchNormAgain>("batch_norm_apply", dtype));
    entries.push_back(Own<BatchNormBackward>("batch_norm_grad", dtype));
    entries.push_back(Own<ConvForward>("conv2d", dtype));
    entries.push_back(Own<ConvInputGradOf>("conv2d_input_grad", dtype));
    entries.push_back(Own<ConvWeightGradOf>("conv2d_weight_grad", dtype));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
