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

  // Where a kernel puts its result from row `row` on: its memory, or `scratch` when followers come.
  float* Target(const TensorView& output, int64_t row, int64_t n, float* scratch) const {
    return program_ ? scratch : output.as<float>() + row * n;
  }
  // `rows` rows of n values side by side.
  void Run(const graph::KernelContext& context, int64_t row, int64_t rows, int64_t n,
           float* values) const {
    if (!program_) return;
    float* registers = pointwise::ThreadRegisters(program_->registers());
    const int64_t most = std::max<int64_t>(1, pointwise::kBlockElements / std::max<int64_t>(1, n));
    for (int64_t i = 0; i < rows; i += most) {
      const int64_t some = std::min(most, rows - i);
      for (int64_t column = 0; column < n; column += pointwise::kBlockElements) {
        const int64_t columns = std::min(pointwise::kBlockElements, n - column);
        program_->Run(context, {row + i, some, column, columns, n, columns}, registers,
                      values + i * n + column);
      }
    }
  }

 private:
  std::optional<pointwise::Program> program_;
};

}  // namespace lepton::kernels::norm
