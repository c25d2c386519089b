#include "runtime/kernels/cpu/pointwise/kernel.h"

#include <algorithm>

#include "runtime/graph/passes/fusion.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/kernels/cpu/pointwise/scratch.h"

namespace lepton::kernels::pointwise {
namespace {

using graph::KernelContext;
using graph::KernelRequest;
using graph::kNoValue;
using graph::Node;

constexpr int64_t kGrainBlocks = 16;  // for which another thread is worth waking

std::vector<const Node*> NodesOf(const KernelRequest& request) {
  std::vector<const Node*> nodes = {request.node};
  nodes.insert(nodes.end(), request.followers.begin(), request.followers.end());
  return nodes;
}

class PointwiseKernel final : public graph::Kernel {
 public:
  explicit PointwiseKernel(const KernelRequest& request)
      : program_(NodesOf(request), kNoValue, request.types, request.kept) {
    const Shape& shape = request.outputs[0].shape;
    const int64_t total = shape.elements();
    // Rows matter only to what is repeated along them.
    const int64_t width = program_.reads_rows() ? shape.back() : std::min(total, kBlockElements);
    width_ = std::max<int64_t>(1, width);
    rows_ = (total + width_ - 1) / width_;
    last_columns_ = total - (rows_ - 1) * width_;
    columns_ = std::min(width_, kBlockElements);
    block_rows_ = program_.reads_rows() ? std::max<int64_t>(1, kBlockElements / width_) : 1;
  }

  void Run(const KernelContext& context) override {
    if (rows_ == 0) return;
    const int64_t across = (width_ + columns_ - 1) / columns_;
    const int64_t down = (rows_ + block_rows_ - 1) / block_rows_;
    ComputeLoop(across * down, kGrainBlocks, [&](int64_t begin, int64_t end) {
      float* registers = ThreadRegisters(program_.registers());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / across * block_rows_;
        const int64_t column = i % across * columns_;
        const int64_t rows = std::min(block_rows_, rows_ - row);
        const int64_t width = row + rows == rows_ && rows == 1 ? last_columns_ : width_;
        const int64_t columns = std::min(columns_, width - column);
        program_.Run(context, {row, rows, column, columns, width_, columns}, registers, nullptr);
      }
    });
  }

 private:
  const Program program_;
  int64_t width_, rows_, last_columns_, columns_, block_rows_;
};

bool CanRun(const KernelRequest& request) {
  if (request.node == nullptr) return false;
  return Program::CanRun(NodesOf(request), request.types, request.followers.empty()) &&
         graph::ReadOf(request.inputs[0], request.outputs[0].shape) == graph::PointwiseRead::kFull;
}

// f32 alone has kernels of its own (simd_kernels.h), which are quicker for a single node.
bool CanRunGroup(const KernelRequest& request) {
  return !request.followers.empty() && CanRun(request);
}

std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
  return std::make_unique<PointwiseKernel>(request);
}

}  // namespace

std::vector<graph::KernelEntry> PointwiseKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const std::string_view op :
       {"add",          "bias_add",       "cast",      "div",  "dropout",   "gelu",     "gelu_grad",
        "gelu_tanh",    "gelu_tanh_grad", "mul",       "relu", "relu_grad", "scale",    "sigmoid",
        "sigmoid_grad", "silu",           "silu_grad", "sub",  "tanh",      "tanh_grad"}) {
    graph::KernelEntry entry{op, DType::kF32, "pointwise", &CanRunGroup, &Create};
    entry.fuses = true;
    entries.push_back(entry);
    if (op == "bias_add") continue;  // follows products, which are f32
    entry.dtype = DType::kBF16;
    entry.can_run = &CanRun;
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace lepton::kernels::pointwise
