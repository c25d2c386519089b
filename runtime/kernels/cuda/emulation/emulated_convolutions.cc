// What convolutions.h promises, by the device code that computes convolutions without a library.
#include "runtime/kernels/cuda/emulation/emulated_device.h"
#include "runtime/tensor/dtype.h"

namespace lepton::kernels::cuda::emulation {
namespace {

class EmulatedConvolution final : public Convolution {
 public:
  EmulatedConvolution(const ConvolutionShape& shape, Queue& queue) : shape_(shape), queue_(queue) {
    const ConvArguments& a = shape.conv;
    elements_ = shape.pass == ConvolutionPass::kForward
                    ? a.images * a.out_channels * a.h.out * a.w.out
                : shape.pass == ConvolutionPass::kInputGrad
                    ? a.images * a.in_channels * a.h.in * a.w.in
                    : a.out_channels * (a.in_channels / a.groups) * a.h.extent * a.w.extent;
    if (shape.bf16_result) sums_.resize(elements_);
  }
  size_t workspace_bytes() const override { return 0; }

  void Run(const ConvolutionOperands& o) override {
    ConvArguments a = shape_.conv;
    a.result = shape_.bf16_result ? sums_.data() : static_cast<float*>(o.result);
    const Stream stream{&queue_};
    switch (shape_.pass) {
      case ConvolutionPass::kForward:
        a.x = o.a;
        a.weights = o.b;
        RunConv(a, stream);
        break;
      case ConvolutionPass::kInputGrad:
        a.y = o.a;
        a.weights = o.b;
        RunConvInputGrad(a, stream);
        break;
      case ConvolutionPass::kWeightGrad:
        a.y = o.a;
        a.x = o.b;
        RunConvWeightGrad(a, stream);
        break;
    }
    if (!shape_.bf16_result) return;
    queue_.Add([this, to = static_cast<BF16*>(o.result)] {
      for (int64_t i = 0; i < elements_; ++i) to[i] = BF16::FromFloat(sums_[i]);
    });
  }

 private:
  const ConvolutionShape shape_;
  Queue& queue_;
  int64_t elements_ = 0;
  std::vector<float> sums_;
};

}  // namespace

std::unique_ptr<Convolution> EmulatedConvolutions::Make(const ConvolutionShape& shape) {
  if (refuse_) return nullptr;
  return std::make_unique<EmulatedConvolution>(shape, queue_);
}

}  // namespace lepton::kernels::cuda::emulation
