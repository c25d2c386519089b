// Glue of attention.
#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/attention.h"

namespace lepton::kernels::cuda {
namespace {

AttentionArguments ArgumentsOf(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape shape(context, places);
  AttentionArguments a;
  a.batch = shape.batch;
  a.heads = shape.heads;
  a.kv_heads = shape.kv_heads;
  a.queries = shape.queries;
  a.keys = shape.keys;
  a.size = shape.size;
  a.q_pitch = shape.q_pitch;
  a.kv_pitch = shape.kv_pitch;
  a.y_pitch = shape.y_pitch();
  a.k_start = shape.k_start;
  a.v_start = shape.v_start;
  a.scale = static_cast<float>(shape.scale);
  a.causal = shape.causal;
  a.window = shape.window;
  a.bf16 = IsBf16(context.input(places.q));
  a.q = context.input(places.q).data;
  a.k = context.input(places.k).data;
  a.v = context.input(places.v).data;
  if (context.inputs() > places.bias) a.bias = context.input(places.bias).as<float>();
  return a;
}

template <const AttentionPlaces& places>
void AttentionOf(const KernelContext& context, CudaDevice& device) {
  AttentionArguments a = ArgumentsOf(context, places);
  a.y = context.output(0).data;
  a.log_sum = context.output(1).as<float>();
  RunAttention(a, device.stream());
}

template <const AttentionPlaces& places>
void AttentionGradOf(const KernelContext& context, CudaDevice& device) {
  AttentionArguments a = ArgumentsOf(context, places);
  a.y = context.input(places.y).data;
  a.log_sum = context.input(places.log_sum).as<float>();
  a.dy = context.input(places.dy).data;
  a.dq = context.output(places.dq).data;
  a.dk = context.output(places.dk).data;
  a.dv = context.output(places.dv).data;
  a.dot = static_cast<float*>(context.workspace());
  RunAttentionGrad(a, device.stream());
}

template <const AttentionPlaces& places>
size_t DotBytes(const KernelRequest& request) {
  return request.inputs[places.log_sum].bytes();
}

template <const AttentionPlaces& places>
bool FitsHeads(const KernelRequest& request) {
  const AttentionShape shape(request.inputs[places.q].shape, request.inputs[places.k].shape,
                             *request.attributes, places.packed);
  return shape.size <= kAttentionSize;
}

}  // namespace

std::vector<KernelEntry> AttentionKernels() {
  std::vector<KernelEntry> entries;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(CudaEntry("attention", dtype, "own", &FitsHeads<kAttentionPlaces>,
                                &DeviceFunction<AttentionOf<kAttentionPlaces>>::Create));
    entries.push_back(CudaEntry("packed_attention", dtype, "own", &FitsHeads<kPackedPlaces>,
                                &DeviceFunction<AttentionOf<kPackedPlaces>>::Create));
    entries.push_back(CudaEntry(
        "attention_grad", dtype, "own", &FitsHeads<kGradPlaces>,
        &DeviceFunctionWithWorkspace<AttentionGradOf<kGradPlaces>, DotBytes<kGradPlaces>>::Create));
    entries.push_back(CudaEntry("packed_attention_grad", dtype, "own",
                                &FitsHeads<kPackedGradPlaces>,
                                &DeviceFunctionWithWorkspace<AttentionGradOf<kPackedGradPlaces>,
                                                             DotBytes<kPackedGradPlaces>>::Create));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
