#include "runtime/kernels/kernel_list_cpu.h"

#include "runtime/kernels/cpu/broadcast_kernels.h"
#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/kernels/cpu/onednn_conv.h"
#include "runtime/kernels/cpu/onednn_matmul.h"
#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/shape_kernels.h"
#include "runtime/kernels/cpu/simd_kernels.h"
#include "runtime/kernels/cpu/transformer_kernels.h"

namespace lepton::kernels {
namespace {

using graph::KernelEntry;

template <void (*function)(const KernelContext&)>
KernelEntry Reference(std::string_view op, DType dtype = DType::kF32) {
  return {op, dtype, "reference", &Always, &FunctionKernel<function>::Create};
}

// Spread over threads; plain loops that the compiler vectorises.
template <void (*function)(const KernelContext&)>
KernelEntry Threaded(std::string_view op, bool (*can_run)(const KernelRequest&) = &Always,
                     DType dtype = DType::kF32) {
  return {op, dtype, "threaded", can_run, &FunctionKernel<function>::Create};
}

bool ShapesDiffer(const KernelRequest& request) {
  return request.inputs[0].shape != request.inputs[1].shape;
}

// Ops that move elements of any type of training.
void AppendMoves(std::vector<KernelEntry>& entries) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
    entries.push_back(Threaded<shape::Gather>("gather", &Always, dtype));
    entries.push_back(Threaded<shape::Slice>("slice", &Always, dtype));
    entries.push_back(Threaded<shape::Transpose>("transpose", &Always, dtype));
    entries.push_back(Reference<reference::Concat>("concat", dtype));
    entries.push_back(Reference<reference::Gather>("gather", dtype));
    entries.push_back(Reference<reference::Reshape>("reshape", dtype));
    entries.push_back(Reference<reference::Slice>("slice", dtype));
    entries.push_back(Reference<reference::Transpose>("transpose", dtype));
  }
}

// Per op, the fastest first and the reference last.
std::vector<KernelEntry> List() {
  std::vector<KernelEntry> entries = {
      {"matmul", DType::kF32, "onednn", &PrefersOnednnMatmul, &CreateOnednnMatmul},
      {"matmul", DType::kBF16, "onednn", &PrefersOnednnMatmul, &CreateOnednnMatmul},
      {"matmul", DType::kBF16, "onednn widened", &CanRunWidenedMatmul, &CreateWidenedMatmul},
      {"batch_matmul", DType::kF32, "onednn", &PrefersOnednnMatmul, &CreateOnednnMatmul},
      {"batch_matmul", DType::kBF16, "onednn", &PrefersOnednnMatmul, &CreateOnednnMatmul},
      {"batch_matmul", DType::kBF16, "onednn widened", &CanRunWidenedMatmul, &CreateWidenedMatmul},
      {"conv2d", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      {"conv2d_input_grad", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      {"conv2d_weight_grad", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      Threaded<transformer::Attention>("attention"),
      Threaded<transformer::AttentionGrad>("attention_grad"),
      Threaded<transformer::RmsNorm>("rms_norm"),
      Threaded<transformer::RmsNormGrad>("rms_norm_grad"),
      {"rope", DType::kF32, "threaded", &Always, &transformer::CreateRope},
      Threaded<shape::GatherGrad>("gather_grad"),
      Threaded<broadcast::Add>("add", &ShapesDiffer),
      Threaded<broadcast::Mul>("mul", &ShapesDiffer),
      Threaded<broadcast::Sub>("sub"),
      Threaded<broadcast::Div>("div"),
      Threaded<broadcast::BroadcastTo>("broadcast_to"),
      Threaded<broadcast::SumLeadingAxes>("sum_to", &broadcast::CanSumLeadingAxes),
  };
  AppendMoves(entries);
  const std::vector<KernelEntry> images = image::ImageKernels();
  entries.insert(entries.end(), images.begin(), images.end());
  const std::vector<KernelEntry> simd = SimdKernels();
  entries.insert(entries.end(), simd.begin(), simd.end());
  const KernelEntry references[] = {
      Reference<reference::Matmul>("matmul"),
      Reference<reference::Matmul>("matmul", DType::kBF16),
      Reference<reference::BatchMatmul>("batch_matmul"),
      Reference<reference::BatchMatmul>("batch_matmul", DType::kBF16),
      Reference<reference::Conv2d>("conv2d"),
      Reference<reference::Conv2dInputGrad>("conv2d_input_grad"),
      Reference<reference::Conv2dWeightGrad>("conv2d_weight_grad"),
      Reference<reference::Attention>("attention"),
      Reference<reference::AttentionGrad>("attention_grad"),
      Reference<reference::RmsNorm>("rms_norm"),
      Reference<reference::RmsNormGrad>("rms_norm_grad"),
      Reference<reference::Rope>("rope"),
      Reference<reference::Silu>("silu"),
      Reference<reference::SiluGrad>("silu_grad"),
      Reference<reference::GatherGrad>("gather_grad"),
      Reference<reference::SliceGrad>("slice_grad"),
      Reference<reference::Add>("add"),
      Reference<reference::BiasAdd>("bias_add"),
      Reference<reference::BroadcastTo>("broadcast_to"),
      Reference<reference::Cast>("cast"),
      Reference<reference::Cast>("cast", DType::kBF16),
      Reference<reference::Div>("div"),
      Reference<reference::Dropout>("dropout"),
      Reference<reference::Expand>("expand"),
      Reference<reference::Fill>("fill"),
      Reference<reference::Gelu>("gelu"),
      Reference<reference::GeluGrad>("gelu_grad"),
      Reference<reference::GeluTanh>("gelu_tanh"),
      Reference<reference::GeluTanhGrad>("gelu_tanh_grad"),
      Reference<reference::Mul>("mul"),
      Reference<reference::PoolTokens>("pool_tokens"),
      Reference<reference::PoolTokensGrad>("pool_tokens_grad"),
      Reference<reference::Positions>("positions", DType::kI32),
      Reference<reference::Reduce>("reduce"),
      Reference<reference::Relu>("relu"),
      Reference<reference::ReluGrad>("relu_grad"),
      Reference<reference::Scale>("scale"),
      Reference<reference::Sigmoid>("sigmoid"),
      Reference<reference::SigmoidGrad>("sigmoid_grad"),
      Reference<reference::Sub>("sub"),
      Reference<reference::SumTo>("sum_to"),
      Reference<reference::Tanh>("tanh"),
      Reference<reference::TanhGrad>("tanh_grad"),
      Reference<reference::LayerNorm>("layer_norm"),
      Reference<reference::LayerNormGrad>("layer_norm_grad"),
      Reference<reference::LogSoftmax>("log_softmax"),
      Reference<reference::LogSoftmaxGrad>("log_softmax_grad"),
      Reference<reference::Softmax>("softmax"),
      Reference<reference::SoftmaxGrad>("softmax_grad"),
      Reference<reference::BinaryCrossEntropy>("binary_cross_entropy"),
      Reference<reference::BinaryCrossEntropyGrad>("binary_cross_entropy_grad"),
      Reference<reference::CrossEntropy>("cross_entropy"),
      Reference<reference::CrossEntropyGrad>("cross_entropy_grad"),
      Reference<reference::Distillation>("distillation"),
      Reference<reference::DistillationGrad>("distillation_grad"),
      Reference<reference::MeanSquaredError>("mse"),
      Reference<reference::MeanSquaredErrorGrad>("mse_grad"),
  };
  entries.insert(entries.end(), std::begin(references), std::end(references));
  return entries;
}

}  // namespace

const graph::KernelTable& CpuKernels() {
  static const graph::KernelTable table(List());
  return table;
}

}  // namespace lepton::kernels
