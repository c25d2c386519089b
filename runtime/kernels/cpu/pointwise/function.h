// What each pointwise op computes, on blocks of f32. bf16 is widened before and rounded after.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/graph/attributes.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::pointwise {

struct Function {
  std::string_view op;
  int inputs;
  // `b` is null for functions of one input. Blocks do not overlap.
  void (*run)(float parameter, int64_t count, const float* a, const float* b, float* y);
  // The one number that a function takes of its node; null: it takes none.
  float (*parameter)(const graph::Attributes& attributes) = nullptr;
  // Of a bf16 activation, and of a gradient by its bf16 input, with what surrounds it; else null.
  simd::ActivationRows* simd::Loops::*rows = nullptr;
  simd::ActivationGradRows* simd::Loops::*grad_rows = nullptr;
};

// Null for an op that is not listed. Casts are not: they are rounding.
const Function* FindFunction(std::string_view op);

}  // namespace lepton::kernels::pointwise
