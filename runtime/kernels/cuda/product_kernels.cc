// Products with what follows them. Of the followers, those that the library computes in the same
// pass (a bias, a residual, rounding) are folded into it; the rest is one pointwise pass over
// its result.
#include <algorithm>

#include "runtime/base/logging.h"
#include "runtime/graph/passes/fusion.h"
#include "runtime/kernels/cuda/pointwise_chain.h"

namespace lepton::kernels::cuda {
namespace {

using graph::kNoValue;
using graph::Node;
using graph::PointwiseRead;
using graph::ValueId;

ProductShape ShapeOf(const KernelRequest& request) {
  const Shape& a = request.inputs[0].shape;
  const Shape& y = request.outputs[0].shape;
  ProductShape shape;
  if (request.op == "batch_matmul") shape.batch = y.rows() / y[y.rank() - 2];
  shape.transpose_a = request.attributes->Int("transpose_a") != 0;
  shape.transpose_b = request.attributes->Int("transpose_b") != 0;
  shape.m = y.rows() / shape.batch;
  shape.n = y.back();
  shape.k = shape.transpose_a ? a.rows() / shape.batch : a.back();
  shape.bf16 = request.inputs[0].dtype == DType::kBF16;
  return shape;
}

// How much of a step one product computes.
class Folding {
 public:
  explicit Folding(const KernelRequest& request)
      : request_(request), shape(ShapeOf(request)), result(request.node->outputs[0]) {
    folded = 0;
    for (const Node* follower : request.followers) {
      if (!Fold(*follower)) break;
      result = follower->outputs[0];
      ++folded;
    }
  }

 private:
  // Nobody but the follower may read what would not be written.
  bool Fold(const Node& node) {
    if (request_.kept[result] || ReadsOfResult() != 1 || shape.bf16_result || shape.batch > 1) {
      return false;
    }
    const std::string_view op = node.op->name();
    const auto type = [&](ValueId value) -> const TensorType& { return request_.types[value]; };
    if (op == "bias_add" && node.inputs[0] == result && folded == 0) {
      return shape.bias = true, bias = node.inputs[1], true;
    }
    if (op == "add" && !shape.residual) {
      const ValueId other = node.inputs[node.inputs[0] == result ? 1 : 0];
      if (type(other) != type(result)) return false;
      return shape.residual = true, residual = other, true;
    }
    if (op == "cast" && !shape.residual) return shape.bf16_result = true;
    return false;
  }
  int ReadsOfResult() const {
    int reads = 0;
    for (const Node* node : request_.followers) {
      reads += static_cast<int>(std::count(node->inputs.begin(), node->inputs.end(), result));
    }
    return reads;
  }
  const KernelRequest& request_;

 public:
  ProductShape shape;
  ValueId bias = kNoValue, residual = kNoValue;
  ValueId result;  // the last value that the product computes
  size_t folded;   // followers
};

// The bias of a bf16 result must be bf16, too.
size_t RoundedBiasBytes(const ProductShape& shape) {
  return shape.bias && shape.bf16_result ? AlignedSize(static_cast<size_t>(shape.n) * sizeof(BF16))
                                         : 0;
}

class ProductKernel final : public graph::Kernel {
 public:
  explicit ProductKernel(const KernelRequest& request) : device_(DeviceOf(request)) {
    Plan(request);
    workspace_ = AlignedSize(product_->workspace_bytes()) + RoundedBiasBytes(shape_);
    if (chain_ == nullptr || request.kept[result_]) return;
    result_offset_ = workspace_;
    workspace_ += AlignedSize(request.types[result_].bytes());
    result_in_workspace_ = true;
  }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<ProductKernel>(request);
  }
  // Any chain can follow: what the product cannot do is done after it.
  static bool CanRun(const KernelRequest& request) {
    if (!CanMultiply(ShapeOf(request))) return false;
    return request.followers.empty() ||
           PointwiseChain::CanRun(request.followers, request.node->outputs[0], request.types);
  }

  size_t workspace_bytes() const override { return workspace_; }

  void Run(const KernelContext& context) override {
    char* const workspace = static_cast<char*>(context.workspace());
    ProductOperands operands{context.input(0).data, context.input(1).data};
    if (bias_ != kNoValue) operands.bias = Bias(context, workspace);
    if (residual_ != kNoValue) operands.residual = context.value(residual_).data;
    operands.y = result_in_workspace_ ? workspace + result_offset_ : context.value(result_).data;
    operands.workspace = workspace;
    product_->Run(operands);
    if (chain_ != nullptr) chain_->Run(context, device_, operands.y);
  }

 private:
  void Plan(const KernelRequest& request) {
    Folding folding(request);
    product_ = device_.products().Make(folding.shape);
    if (product_ == nullptr) {
      folding.shape = ShapeOf(request);
      folding.bias = folding.residual = kNoValue;
      folding.result = request.node->outputs[0];
      folding.folded = 0;
      product_ = device_.products().Make(folding.shape);
    }
    CHECK(product_ != nullptr) << "no plain product of " << request.inputs[0].ToString() << " and "
                               << request.inputs[1].ToString();
    shape_ = folding.shape;
    bias_ = folding.bias;
    residual_ = folding.residual;
    result_ = folding.result;
    const auto rest = request.followers.subspan(folding.folded);
    if (rest.empty()) return;
    chain_ = std::make_unique<PointwiseChain>(rest, result_, request.types, request.kept);
  }

  const void* Bias(const KernelContext& context, char* workspace) {
    const TensorView& bias = context.value(bias_);
    if (RoundedBiasBytes(shape_) == 0) return bias.data;
    void* const rounded = workspace + AlignedSize(product_->workspace_bytes());
    PointwiseProgram program;
    program.total = shape_.n;
    program.steps = 2;
    program.step[0] = {PointwiseCode::kLoad, 0, 0, 0, IsBf16(bias)};
    program.step[0].data = bias.data;
    program.step[1] = {PointwiseCode::kStore, 0, 0, 0, true};
    program.step[1].data = rounded;
    RunPointwise(program, device_.stream());
    return rounded;
  }

  CudaDevice& device_;
  ProductShape shape_;
  std::unique_ptr<Product> product_;
  std::unique_ptr<PointwiseChain> chain_;
  ValueId bias_ = kNoValue, residual_ = kNoValue, result_ = kNoValue;
  size_t workspace_ = 0, result_offset_ = 0;
  bool result_in_workspace_ = false;
};

}  // namespace

std::vector<KernelEntry> ProductKernels() {
  std::vector<KernelEntry> entries;
  for (const std::string_view op : {"matmul", "batch_matmul"}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      entries.push_back(CudaEntry(op, dtype, "library", &ProductKernel::CanRun,
                                  &ProductKernel::Create, /*fuses=*/true));
    }
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
