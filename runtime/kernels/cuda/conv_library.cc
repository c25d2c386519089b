// Convolutions by the device's library. One of bf16 gives bf16: those that are rounded at once are
// its, with the rounding; weights' gradients stay f32 (conv_products.cc).
#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/conv_arguments.h"
#include "runtime/kernels/cuda/pointwise_chain.h"

namespace lepton::kernels::cuda {
namespace {

ConvolutionShape ConvolutionOf(const KernelRequest& request) {
  ConvolutionShape shape;
  shape.pass = request.op == "conv2d"              ? ConvolutionPass::kForward
               : request.op == "conv2d_input_grad" ? ConvolutionPass::kInputGrad
                                                   : ConvolutionPass::kWeightGrad;
  shape.conv = ConvArgumentsOf(request);
  shape.bf16_result = shape.conv.bf16;
  return shape;
}

std::unique_ptr<Convolution> ByLibrary(const KernelRequest& request) {
  if (request.accelerator == nullptr) return nullptr;
  Convolutions* const library = DeviceOf(request).convolutions();
  return library == nullptr ? nullptr : library->Make(ConvolutionOf(request));
}

bool HasPlan(const KernelRequest& request) {
  return ByLibrary(request) != nullptr;
}

bool IsRounded(const KernelRequest& request) {
  if (request.followers.size() != 1) return false;
  const graph::Node& follower = *request.followers[0];
  return follower.op->name() == "cast" &&
         request.types[follower.outputs[0]].dtype == DType::kBF16 && HasPlan(request);
}

class LibraryConvolution final : public graph::Kernel {
 public:
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<LibraryConvolution>(request);
  }
  explicit LibraryConvolution(const KernelRequest& request)
      : convolution_(ByLibrary(request)),
        result_(request.followers.empty() ? graph::kNoValue : request.followers[0]->outputs[0]) {
    CHECK(convolution_ != nullptr) << "the library no longer computes a convolution";
  }
  size_t workspace_bytes() const override { return convolution_->workspace_bytes(); }
  void Run(const KernelContext& c) override {
    const TensorView& result = result_ == graph::kNoValue ? c.output(0) : c.value(result_);
    convolution_->Run({c.input(0).data, c.input(1).data, result.data, c.workspace()});
  }

 private:
  const std::unique_ptr<Convolution> convolution_;
  const graph::ValueId result_;  // what it writes instead of the node's output
};

// Where somebody else reads the sums before they are rounded.
class RoundedApart final : public graph::Kernel {
 public:
  explicit RoundedApart(const KernelRequest& request)
      : device_(DeviceOf(request)),
        sums_(Sums(request)),
        rounding_(request.followers, request.node->outputs[0], request.types, request.kept) {}
  size_t workspace_bytes() const override { return sums_->workspace_bytes(); }
  void Run(const KernelContext& context) override {
    sums_->Run(context);
    rounding_.Run(context, device_, context.output(0).data);
  }

 private:
  static std::unique_ptr<graph::Kernel> Sums(const KernelRequest& request) {
    KernelRequest alone = request;
    alone.followers = {};
    for (const auto family : {&ConvProductKernels, &ImageKernels}) {
      for (const KernelEntry& entry : family()) {
        if (entry.op == request.op && entry.dtype == request.inputs[0].dtype &&
            entry.can_run(alone)) {
          return entry.create(alone);
        }
      }
    }
    LOG(FATAL) << "no kernel of our own for " << request.op;
    return nullptr;
  }

  CudaDevice& device_;
  const std::unique_ptr<graph::Kernel> sums_;
  const PointwiseChain rounding_;
};

std::unique_ptr<graph::Kernel> CreateRounded(const KernelRequest& request) {
  if (request.kept[request.node->outputs[0]]) return std::make_unique<RoundedApart>(request);
  return std::make_unique<LibraryConvolution>(request);
}

}  // namespace

std::vector<KernelEntry> ConvLibraryKernels() {
  std::vector<KernelEntry> entries;
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    entries.push_back(CudaEntry(op, DType::kF32, "library", &HasPlan, &LibraryConvolution::Create));
  }
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    entries.push_back(CudaEntry(op, DType::kBF16, "library rounded", &IsRounded, &CreateRounded,
                                /*fuses=*/true));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
