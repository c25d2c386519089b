// The pointwise nodes that follow a kernel which makes its result row by row.
// Threads: plain value; Run is called from several at once, each with its own row.
#pragma once

#include <algorithm>
#include <optional>

#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/kernels/cpu/pointwise/scratch.h"

namespace lepton::kernels::norm {

class RowFollowers {
 public:
  explicit RowFollowers(const graph::KernelRequest& request) {
    if (request.followers.empty()) return;
    program_.emplace(request.followers, request.node->outputs[0], request.types, request.kept);
  }
  static bool CanRun(const graph::KernelRequest& request) {
    return pointwise::Program::CanRun(request.followers, request.types);
  }

  // Where a kernel puts row `row` of its result: its memory, or `scratch` when followers come.
  float* Target(const TensorView& output, int64_t row, int64_t n, float* scratch) const {
    return program_ ? scratch : output.as<float>() + row * n;
  }
  void Run(const graph::KernelContext& context, int64_t row, int64_t n, float* values) const {
    if (!program_) return;
    float* registers = pointwise::ThreadRegisters(program_->registers());
    for (int64_t column = 0; column < n; column += pointwise::kBlockElements) {
      const int64_t columns = std::min(pointwise::kBlockElements, n - column);
      program_->Run(context, {row, 1, column, columns, n, columns}, registers, values + column);
    }
  }

 private:
  std::optional<pointwise::Program> program_;
};

}  // namespace lepton::kernels::norm
