// What follows a product, on each of its blocks. Threads: as Finisher.
#pragma once

#include <algorithm>

#include "runtime/kernels/cpu/gemm/gemm.h"
#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/kernels/cpu/pointwise/scratch.h"

namespace lepton::kernels::gemm {

// Runs the followers on each block. The program and the context must outlive it.
class ProgramFinisher final : public Finisher {
 public:
  ProgramFinisher(const pointwise::Program& program, const graph::KernelContext& context,
                  int64_t width)
      : program_(program), context_(context), width_(width) {}

  void Expect(int64_t first_row, int64_t rows, int64_t first_column,
              int64_t columns) const override {
    program_.Prefetch(context_, {first_row, rows, first_column, columns, width_, kPanelColumns});
  }
  void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
              float* block) const override {
    constexpr int64_t kRows = pointwise::kBlockElements / kPanelColumns;
    float* registers = pointwise::ThreadRegisters(program_.registers());
    for (int64_t row = 0; row < rows; row += kRows) {
      program_.Run(context_,
                   {first_row + row, std::min(kRows, rows - row), first_column, columns, width_,
                    kPanelColumns},
                   registers, block + row * kPanelColumns);
    }
  }

 private:
  const pointwise::Program& program_;
  const graph::KernelContext& context_;
  const int64_t width_;
};

}  // namespace lepton::kernels::gemm
