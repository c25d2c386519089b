#include "runtime/kernels/kernel_list_cpu.h"

#include "runtime/kernels/cpu/attention/flash.h"
#include "runtime/kernels/cpu/broadcast_kernels.h"
#include "runtime/kernels/cpu/conv/conv_kernel.h"
#include "runtime/kernels/cpu/conv/int8_conv_kernel.h"
#include "runtime/kernels/cpu/conv/shifted_kernel.h"
#include "runtime/kernels/cpu/conv/winograd_kernel.h"
#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/gemm/linear_loss_kernel.h"
#include "runtime/kernels/cpu/gemm/matmul_kernel.h"
#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/kernels/cpu/norm/norm_kernels.h"
#include "runtime/kernels/cpu/onednn_conv.h"
#include "runtime/kernels/cpu/pointwise/kernel.h"
#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/shape_kernels.h"
#include "runtime/kernels/cpu/simd_kernels.h"
#include "runtime/kernels/cpu/transformer_kernels.h"
#include "runtime/kernels/cpu/widened_reference.h"

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

void Append(const std::vector<KernelEntry>& more, std::vector<KernelEntry>& entries) {
  entries.insert(entries.end(), more.begin(), more.end());
}

// For nodes whose first input, or another value, is bf16.
template <void (*function)(const KernelContext&)>
void AppendReferences(std::string_view op, std::vector<KernelEntry>& entries) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(Reference<reference::Widened<function>>(op, dtype));
  }
}

// Ops that move elements of any type of training.
void AppendMoves(std::vector<KernelEntry>& entries) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
    entries.push_back(Threaded<shape::Gather>("gather", &Always, dtype));
    if (dtype == DType::kF32) entries.back().widens = 0;
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
  std::vector<KernelEntry> entries = conv::WinogradKernels();
  const std::vector<KernelEntry> others = {
      {"conv2d", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      {"conv2d_input_grad", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      {"conv2d_weight_grad", DType::kF32, "onednn", &CanRunOnednnConv, &CreateOnednnConv},
      Threaded<attention::Forward>("attention"),
      Threaded<attention::Forward>("attention", &Always, DType::kBF16),
      Threaded<attention::CachedForward>("cached_attention"),
      Threaded<attention::CachedForward>("cached_attention", &Always, DType::kBF16),
      Threaded<attention::Backward>("attention_grad"),
      Threaded<attention::Backward>("attention_grad", &Always, DType::kBF16),
      Threaded<attention::PackedForward>("packed_attention"),
      Threaded<attention::PackedForward>("packed_attention", &Always, DType::kBF16),
      Threaded<attention::PackedBackward>("packed_attention_grad"),
      Threaded<attention::PackedBackward>("packed_attention_grad", &Always, DType::kBF16),
      Threaded<shape::SliceGrad>("slice_grad"),
      {"rope", DType::kF32, "threaded", &Always, &transformer::CreateRope},
      {"rope", DType::kBF16, "threaded", &Always, &transformer::CreateRope},
      {"rope_angles", DType::kI32, "threaded", &Always, &transformer::CreateRopeAngles},
      Threaded<shape::GatherGrad>("gather_grad"),
      Threaded<broadcast::Add>("add", &ShapesDiffer),
      Threaded<broadcast::Mul>("mul", &ShapesDiffer),
      Threaded<broadcast::Sub>("sub"),
      Threaded<broadcast::Div>("div"),
      Threaded<broadcast::BroadcastTo>("broadcast_to"),
      Threaded<broadcast::SumLeadingAxes>("sum_to", &broadcast::CanSumLeadingAxes),
  };
  Append(others, entries);
  Append(gemm::MatmulKernels(), entries);
  Append(gemm::LinearLossKernels(), entries);
  Append(conv::ShiftedConvKernels(), entries);
  Append(conv::ConvKernels(), entries);
  Append(conv::Int8ConvKernels(), entries);
  Append(norm::NormKernels(), entries);
  Append(pointwise::PointwiseKernels(), entries);
  AppendMoves(entries);
  Append(image::ImageKernels(), entries);
  Append(SimdKernels(), entries);
  const KernelEntry references[] = {
      Reference<reference::Matmul>("matmul"),
      Reference<reference::Matmul>("matmul", DType::kBF16),
      Reference<reference::MatmulInt8>("matmul_int8"),
      Reference<reference::MatmulInt8>("matmul_int8", DType::kBF16),
      Reference<reference::BatchMatmul>("batch_matmul"),
      Reference<reference::BatchMatmul>("batch_matmul", DType::kBF16),
      Reference<reference::RmsNorm>("rms_norm"),
      Reference<reference::Widened<reference::RmsNormGrad>>("rms_norm_grad"),
      Reference<reference::GatherGrad>("gather_grad"),
      Reference<reference::SliceGrad>("slice_grad"),
      Reference<reference::BiasAdd>("bias_add"),
      Reference<reference::Widened<reference::BroadcastTo>>("broadcast_to"),
      Reference<reference::Cast>("cast"),
      Reference<reference::Cast>("cast", DType::kBF16),
      Reference<reference::Widened<reference::Expand>>("expand"),
      Reference<reference::Fill>("fill"),
      Reference<reference::PoolTokens>("pool_tokens"),
      Reference<reference::PoolTokensGrad>("pool_tokens_grad"),
      Reference<reference::Positions>("positions", DType::kI32),
      Reference<reference::RopeAngles>("rope_angles", DType::kI32),
      Reference<reference::CachedAttention>("cached_attention"),
      Reference<reference::CachedAttention>("cached_attention", DType::kBF16),
      Reference<reference::Widened<reference::SumTo>>("sum_to"),
      Reference<reference::LayerNorm>("layer_norm"),
      Reference<reference::Widened<reference::LayerNormGrad>>("layer_norm_grad"),
      Reference<reference::LogSoftmax>("log_softmax"),
      Reference<reference::LogSoftmaxGrad>("log_softmax_grad"),
      Reference<reference::Softmax>("softmax"),
      Reference<reference::TensorCopy>("tensor_copy"),
      Reference<reference::TensorSum>("tensor_sum"),
      Reference<reference::SoftmaxGrad>("softmax_grad"),
      Reference<reference::BinaryCrossEntropy>("binary_cross_entropy"),
      Reference<reference::BinaryCrossEntropyGrad>("binary_cross_entropy_grad"),
      Reference<reference::CrossEntropy>("cross_entropy"),
      Reference<reference::CrossEntropyGrad>("cross_entropy_grad"),
      Reference<reference::LinearCrossEntropy>("linear_cross_entropy"),
      Reference<reference::LinearCrossEntropy>("linear_cross_entropy", DType::kBF16),
      Reference<reference::LinearCrossEntropyGrad>("linear_cross_entropy_grad"),
      Reference<reference::LinearCrossEntropyGrad>("linear_cross_entropy_grad", DType::kBF16),
      Reference<reference::Distillation>("distillation"),
      Reference<reference::DistillationGrad>("distillation_grad"),
      Reference<reference::MeanSquaredError>("mse"),
      Reference<reference::MeanSquaredErrorGrad>("mse_grad"),
  };
  entries.insert(entries.end(), std::begin(references), std::end(references));
  AppendReferences<reference::Attention>("attention", entries);
  AppendReferences<reference::AttentionGrad>("attention_grad", entries);
  AppendReferences<reference::PackedAttention>("packed_attention", entries);
  AppendReferences<reference::PackedAttentionGrad>("packed_attention_grad", entries);
  AppendReferences<reference::Conv2d>("conv2d", entries);
  AppendReferences<reference::Conv2dInt8>("conv2d_int8", entries);
  AppendReferences<reference::Conv2dInputGrad>("conv2d_input_grad", entries);
  AppendReferences<reference::Conv2dWeightGrad>("conv2d_weight_grad", entries);
  AppendReferences<reference::Rope>("rope", entries);
  AppendReferences<reference::Silu>("silu", entries);
  AppendReferences<reference::SiluGrad>("silu_grad", entries);
  AppendReferences<reference::Add>("add", entries);
  AppendReferences<reference::Div>("div", entries);
  AppendReferences<reference::Dropout>("dropout", entries);
  AppendReferences<reference::Gelu>("gelu", entries);
  AppendReferences<reference::GeluGrad>("gelu_grad", entries);
  AppendReferences<reference::GeluTanh>("gelu_tanh", entries);
  AppendReferences<reference::GeluTanhGrad>("gelu_tanh_grad", entries);
  AppendReferences<reference::Mul>("mul", entries);
  AppendReferences<reference::Reduce>("reduce", entries);
  AppendReferences<reference::Relu>("relu", entries);
  AppendReferences<reference::ReluGrad>("relu_grad", entries);
  AppendReferences<reference::Scale>("scale", entries);
  AppendReferences<reference::Sigmoid>("sigmoid", entries);
  AppendReferences<reference::SigmoidGrad>("sigmoid_grad", entries);
  AppendReferences<reference::Sub>("sub", entries);
  AppendReferences<reference::Tanh>("tanh", entries);
  AppendReferences<reference::TanhGrad>("tanh_grad", entries);
  AppendReferences<reference::SumRows>("sum_rows", entries);
  return entries;
}

}  // namespace

const graph::KernelTable& CpuKernels() {
  static const graph::KernelTable table(List());
  return table;
}

}  // namespace lepton::kernels
