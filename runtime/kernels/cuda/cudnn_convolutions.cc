#include "runtime/kernels/cuda/cudnn_convolutions.cuh"

#include <algorithm>
#include <utility>

namespace lepton::kernels::cuda {
namespace {

// Numbers of the tensors.
constexpr int64_t kX = 1, kWeights = 2, kY = 3;

constexpr int64_t kAlignment = 16;  // what lies in a plan's arena is, parameters lie anywhere

struct Names {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t conv, x, weights, y, alpha, beta;
};

Names NamesOf(ConvolutionPass pass) {
  switch (pass) {
    case ConvolutionPass::kForward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case ConvolutionPass::kInputGrad:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvolutionPass::kWeightGrad:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

// Zeros behind the last element that the windows reach.
int64_t PadAfter(const WindowAxisArguments& axis) {
  return std::max<int64_t>(0, (axis.out - 1) * axis.stride + (axis.extent - 1) * axis.dilation + 1 -
                                  axis.before - axis.in);
}

const CudnnDescriptor& AddTensor(CudnnGraph& graph, int64_t number, bool bf16, bool aligned,
                                 int64_t n, int64_t c, int64_t h, int64_t w) {
  const size_t element = bf16 ? sizeof(uint16_t) : sizeof(float);
  return graph.Add({number,
                    bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT,
                    {n, c, h, w},
                    {c * h * w, h * w, w, 1},
                    aligned ? kAlignment : static_cast<int64_t>(element)});
}

// `aligned`: all memory is, to kAlignment.
std::unique_ptr<CudnnPlan> MakePlan(const CudnnTarget& target, const ConvolutionShape& shape,
                                    bool aligned, Status& failure) {
  const ConvArguments& a = shape.conv;
  const auto bf16 = [&](ConvolutionPass result_of) {
    return shape.pass == result_of ? shape.bf16_result : a.bf16;
  };
  CudnnGraph graph(target);
  const CudnnDescriptor& x = AddTensor(graph, kX, bf16(ConvolutionPass::kInputGrad), aligned,
                                       a.images, a.in_channels, a.h.in, a.w.in);
  const CudnnDescriptor& weights =
      AddTensor(graph, kWeights, bf16(ConvolutionPass::kWeightGrad), aligned, a.out_channels,
                a.in_channels / a.groups, a.h.extent, a.w.extent);
  const CudnnDescriptor& y = AddTensor(graph, kY, bf16(ConvolutionPass::kForward), aligned,
                                       a.images, a.out_channels, a.h.out, a.w.out);
  CudnnDescriptor& conv = graph.AddPart(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  conv.Set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2});
  conv.Set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  conv.SetRaw(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  conv.Set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, std::vector<int64_t>{a.h.before, a.w.before});
  conv.Set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,
           std::vector<int64_t>{PadAfter(a.h), PadAfter(a.w)});
  conv.Set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, std::vector<int64_t>{a.h.stride, a.w.stride});
  conv.Set(CUDNN_ATTR_CONVOLUTION_DILATIONS, std::vector<int64_t>{a.h.dilation, a.w.dilation});
  if (!conv.Finalize()) {
    failure = NotFound("the window: " + target.cudnn.LastError(conv.status()));
    return nullptr;
  }
  const Names names = NamesOf(shape.pass);
  CudnnDescriptor& operation = graph.AddOperation(names.operation);
  operation.Set(names.conv, conv);
  operation.Set(names.x, x);
  operation.Set(names.weights, weights);
  operation.Set(names.y, y);
  operation.Set(names.alpha, 1.0f);
  operation.Set(names.beta, 0.0f);
  auto plan = graph.Plan({.f32_operands = !a.bf16});
  failure = graph.failure();
  return plan;
}

bool IsEmpty(const ConvArguments& a) {
  return a.images == 0 || a.h.out <= 0 || a.w.out <= 0;
}

bool IsAligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % kAlignment == 0;
}

class CudnnConvolution final : public Convolution {
 public:
  CudnnConvolution(const CudnnTarget& target, ConvolutionPass pass,
                   std::shared_ptr<const CudnnPlans> plans, Status& failed)
      : target_(target), pass_(pass), plans_(std::move(plans)), failed_(failed) {}

  size_t workspace_bytes() const override { return plans_->workspace_bytes(); }

  void Run(const ConvolutionOperands& o) override {
    void* const a = const_cast<void*>(o.a);
    void* const b = const_cast<void*>(o.b);
    const std::vector<void*> memory =
        pass_ == ConvolutionPass::kForward     ? std::vector<void*>{a, b, o.result}
        : pass_ == ConvolutionPass::kInputGrad ? std::vector<void*>{o.result, b, a}
                                               : std::vector<void*>{b, o.result, a};
    const bool aligned = IsAligned(a) && IsAligned(b) && IsAligned(o.result);
    const CudnnPlan& plan = aligned ? *plans_->aligned : *plans_->anywhere;
    const cudnnStatus_t status = plan.Run({kX, kWeights, kY}, memory, o.workspace);
    if (status == CUDNN_STATUS_SUCCESS || !failed_.ok()) return;
    failed_ = Internal("cuDNN convolution: " + target_.cudnn.LastError(status));
  }

 private:
  const CudnnTarget target_;
  const ConvolutionPass pass_;
  const std::shared_ptr<const CudnnPlans> plans_;
  Status& failed_;
};

}  // namespace

CudnnPlans PlanConvolution(const CudnnTarget& target, const ConvolutionShape& shape,
                           Status& failure) {
  CudnnPlans plans;
  if (IsEmpty(shape.conv)) {
    failure = NotFound("there is nothing to compute");
    return plans;
  }
  plans.aligned = MakePlan(target, shape, true, failure);
  if (plans.aligned != nullptr) plans.anywhere = MakePlan(target, shape, false, failure);
  if (plans.anywhere == nullptr) plans.aligned = nullptr;
  return plans;
}

std::unique_ptr<Convolution> CudnnConvolutions::Make(const ConvolutionShape& shape) {
  const ConvArguments& a = shape.conv;
  const auto axis = [](const WindowAxisArguments& w) {
    return std::vector<int64_t>{w.extent, w.stride, w.dilation, w.before, w.in, w.out};
  };
  const auto [found, is_new] =
      plans_.try_emplace(Key{static_cast<int>(shape.pass), a.images, a.in_channels, a.out_channels,
                             a.groups, a.bf16, shape.bf16_result, axis(a.h), axis(a.w)});
  if (is_new) {
    Status failure;
    found->second = std::make_shared<CudnnPlans>(PlanConvolution(target_, shape, failure));
  }
  if (found->second->aligned == nullptr) return nullptr;
  return std::make_unique<CudnnConvolution>(target_, shape.pass, found->second, failed_);
}

}  // namespace lepton::kernels::cuda
