#include <algorithm>

#include "runtime/base/logging.h"
#include "runtime/graph/passes/fusion.h"
#include "runtime/kernels/cpu/strided.h"
#include "runtime/kernels/cuda/pointwise_chain.h"

namespace lepton::kernels::cuda {
namespace {

using graph::kNoValue;
using graph::Node;

std::vector<const Node*> NodesOf(const KernelRequest& request) {
  std::vector<const Node*> nodes = {request.node};
  nodes.insert(nodes.end(), request.followers.begin(), request.followers.end());
  return nodes;
}

class ChainKernel final : public graph::Kernel {
 public:
  explicit ChainKernel(const KernelRequest& request)
      : device_(DeviceOf(request)),
        chain_(NodesOf(request), kNoValue, request.types, request.kept) {}
  void Run(const KernelContext& context) override { chain_.Run(context, device_, nullptr); }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<ChainKernel>(request);
  }

 private:
  CudaDevice& device_;
  const PointwiseChain chain_;
};

bool CanRunChain(const KernelRequest& request) {
  return request.node != nullptr &&
         graph::ReadOf(request.inputs[0], request.outputs[0].shape) ==
             graph::PointwiseRead::kFull &&
         PointwiseChain::CanRun(NodesOf(request), kNoValue, request.types);
}

// Neighbouring axes that both inputs walk as one are merged.
BroadcastArguments MakeBroadcast(const Shape& a, const Shape& b, const Shape& y) {
  const auto strides_a = BroadcastStrides(a, y), strides_b = BroadcastStrides(b, y);
  BroadcastArguments arguments;
  arguments.total = y.elements();
  for (int axis = 0; axis < y.rank(); ++axis) {
    if (y[axis] == 1) continue;
    const int last = arguments.axes - 1;
    const bool merges = last >= 0 && arguments.strides_a[last] == strides_a[axis] * y[axis] &&
                        arguments.strides_b[last] == strides_b[axis] * y[axis];
    if (!merges) ++arguments.axes;
    CHECK_LE(arguments.axes, BroadcastArguments::kAxes);
    const int at = arguments.axes - 1;
    arguments.extents[at] = merges ? arguments.extents[at] * y[axis] : y[axis];
    arguments.strides_a[at] = strides_a[axis];
    arguments.strides_b[at] = strides_b[axis];
  }
  return arguments;
}

void RunBinary(const KernelContext& context, CudaDevice& device, PointwiseCode code) {
  const TensorView& a = context.input(0);
  const TensorView& b = context.input(1);
  const TensorView& y = context.output(0);
  BroadcastArguments arguments = MakeBroadcast(a.shape(), b.shape(), y.shape());
  arguments.code = code;
  arguments.a = a.data;
  arguments.b = b.data;
  arguments.y = y.data;
  arguments.bf16_a = IsBf16(a);
  arguments.bf16_b = IsBf16(b);
  arguments.bf16_y = IsBf16(y);
  RunBroadcast(arguments, device.stream());
}

template <PointwiseCode code>
void Binary(const KernelContext& context, CudaDevice& device) {
  RunBinary(context, device, code);
}

}  // namespace

std::vector<KernelEntry> PointwiseKernels() {
  std::vector<KernelEntry> entries;
  for (const std::string_view op :
       {"add",          "bias_add",       "cast",      "div",  "dropout",   "gelu",     "gelu_grad",
        "gelu_tanh",    "gelu_tanh_grad", "mul",       "relu", "relu_grad", "scale",    "sigmoid",
        "sigmoid_grad", "silu",           "silu_grad", "sub",  "tanh",      "tanh_grad"}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (op == "bias_add" && dtype == DType::kBF16) continue;  // follows products, which are f32
      entries.push_back(
          CudaEntry(op, dtype, "chain", &CanRunChain, &ChainKernel::Create, /*fuses=*/true));
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(Own<Binary<PointwiseCode::kAdd>>("add", dtype));
    entries.push_back(Own<Binary<PointwiseCode::kSub>>("sub", dtype));
    entries.push_back(Own<Binary<PointwiseCode::kMul>>("mul", dtype));
    entries.push_back(Own<Binary<PointwiseCode::kDiv>>("div", dtype));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
