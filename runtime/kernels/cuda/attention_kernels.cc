// Glue of attention.
#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/attention.h"

namespace lepton::kernels::cuda {
namespace {

// Without memory.
AttentionArguments ArgumentsOf(const AttentionShape& shape, bool bf16) {
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
  a.bf16 = bf16;
  return a;
}

AttentionArguments ArgumentsOf(const KernelContext& context, const AttentionPlaces& places) {
  AttentionArguments a =
      ArgumentsOf(AttentionShape(context, places), IsBf16(context.input(places.q)));
  a.q = context.input(places.q).data;
  a.k = context.input(places.k).data;
  a.v = context.input(places.v).data;
  if (context.inputs() > places.bias) a.bias = context.input(places.bias).as<float>();
  return a;
}

using AttentionRun = void (*)(const AttentionArguments&, Stream);

AttentionArguments ForwardArguments(const KernelContext& context, const AttentionPlaces& places) {
  AttentionArguments a = ArgumentsOf(context, places);
  a.y = context.output(0).data;
  a.log_sum = context.output(1).as<float>();
  return a;
}

AttentionArguments GradientArguments(const KernelContext& context, const AttentionPlaces& places) {
  AttentionArguments a = ArgumentsOf(context, places);
  a.y = context.input(places.y).data;
  a.log_sum = context.input(places.log_sum).as<float>();
  a.dy = context.input(places.dy).data;
  a.dq = context.output(places.dq).data;
  a.dk = context.output(places.dk).data;
  a.dv = context.output(places.dv).data;
  return a;
}

template <const AttentionPlaces& places, AttentionRun run>
void AttentionOf(const KernelContext& context, CudaDevice& device) {
  run(ForwardArguments(context, places), device.stream());
}

template <const AttentionPlaces& places, AttentionRun run>
void AttentionGradOf(const KernelContext& context, CudaDevice& device) {
  AttentionArguments a = GradientArguments(context, places);
  a.dot = static_cast<float*>(context.workspace());
  run(a, device.stream());
}

template <const AttentionPlaces& places>
size_t DotBytes(const KernelRequest& request) {
  return request.inputs[places.log_sum].bytes();
}

template <const AttentionPlaces& places>
AttentionArguments ArgumentsOf(const KernelRequest& request) {
  const AttentionShape shape(request.inputs[places.q].shape, request.inputs[places.k].shape,
                             *request.attributes, places.packed);
  return ArgumentsOf(shape, request.inputs[places.q].dtype == DType::kBF16);
}

template <const AttentionPlaces& places>
bool FitsHeads(const KernelRequest& request) {
  return ArgumentsOf<places>(request).size <= kAttentionSize;
}
template <const AttentionPlaces& places>
bool FitsTensors(const KernelRequest& request) {
  return FitsTensorCores(ArgumentsOf<places>(request));
}

// By the library.
template <const AttentionPlaces& places, AttentionPass pass>
class LibraryKernel final : public graph::Kernel {
 public:
  static bool CanRun(const KernelRequest& request) { return ByLibrary(request) != nullptr; }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<LibraryKernel>(request);
  }
  explicit LibraryKernel(const KernelRequest& request) : attention_(ByLibrary(request)) {
    CHECK(attention_ != nullptr) << "the library no longer computes an attention";
  }
  size_t workspace_bytes() const override { return attention_->workspace_bytes(); }
  void Run(const KernelContext& context) override {
    const AttentionArguments a = pass == AttentionPass::kForward
                                     ? ForwardArguments(context, places)
                                     : GradientArguments(context, places);
    attention_->Run(a, context.workspace());
  }

 private:
  static std::unique_ptr<LibraryAttention> ByLibrary(const KernelRequest& request) {
    const bool has_bias = static_cast<int>(request.inputs.size()) > places.bias;
    const AttentionArguments a = ArgumentsOf<places>(request);
    if (request.accelerator == nullptr || has_bias || !FitsLibrary(a)) return nullptr;
    Attentions* const library = DeviceOf(request).attentions();
    return library == nullptr ? nullptr : library->Make(a, pass);
  }

  const std::unique_ptr<LibraryAttention> attention_;
};

template <const AttentionPlaces& forward, const AttentionPlaces& backward>
void AppendLibrary(std::string_view op, std::string_view grad, std::vector<KernelEntry>& entries) {
  using Forward = LibraryKernel<forward, AttentionPass::kForward>;
  using Gradient = LibraryKernel<backward, AttentionPass::kGradient>;
  entries.push_back(CudaEntry(op, DType::kBF16, "library", &Forward::CanRun, &Forward::Create));
  entries.push_back(CudaEntry(grad, DType::kBF16, "library", &Gradient::CanRun, &Gradient::Create));
}

template <const AttentionPlaces& forward, const AttentionPlaces& backward, AttentionRun run,
          AttentionRun run_grad>
void Append(std::string_view op, std::string_view grad, DType dtype, std::string_view name,
            bool (*fits)(const KernelRequest&), bool (*grad_fits)(const KernelRequest&),
            std::vector<KernelEntry>& entries) {
  entries.push_back(
      CudaEntry(op, dtype, name, fits, &DeviceFunction<AttentionOf<forward, run>>::Create));
  entries.push_back(CudaEntry(grad, dtype, name, grad_fits,
                              &DeviceFunctionWithWorkspace<AttentionGradOf<backward, run_grad>,
                                                           DotBytes<backward>>::Create));
}

template <AttentionRun run, AttentionRun run_grad>
void AppendOwn(DType dtype, std::vector<KernelEntry>& entries) {
  Append<kAttentionPlaces, kGradPlaces, run, run_grad>("attention", "attention_grad", dtype, "own",
                                                       &FitsHeads<kAttentionPlaces>,
                                                       &FitsHeads<kGradPlaces>, entries);
  Append<kPackedPlaces, kPackedGradPlaces, run, run_grad>(
      "packed_attention", "packed_attention_grad", dtype, "own", &FitsHeads<kPackedPlaces>,
      &FitsHeads<kPackedGradPlaces>, entries);
}

}  // namespace

std::vector<KernelEntry> AttentionKernels() {
  std::vector<KernelEntry> entries;
  AppendLibrary<kAttentionPlaces, kGradPlaces>("attention", "attention_grad", entries);
  AppendLibrary<kPackedPlaces, kPackedGradPlaces>("packed_attention", "packed_attention_grad",
                                                  entries);
  Append<kAttentionPlaces, kGradPlaces, &RunTensorAttention, &RunTensorAttentionGrad>(
      "attention", "attention_grad", DType::kBF16, "tensor cores", &FitsTensors<kAttentionPlaces>,
      &FitsTensors<kGradPlaces>, entries);
  Append<kPackedPlaces, kPackedGradPlaces, &RunTensorAttention, &RunTensorAttentionGrad>(
      "packed_attention", "packed_attention_grad", DType::kBF16, "tensor cores",
      &FitsTensors<kPackedPlaces>, &FitsTensors<kPackedGradPlaces>, entries);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    AppendOwn<&RunAttention, &RunAttentionGrad>(dtype, entries);
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
