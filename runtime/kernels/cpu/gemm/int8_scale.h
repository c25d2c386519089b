// The scale of 8-bit integers by the rule of runtime/ops/matmul_int8.h. Threads: plain values.
#pragma once

#include <cmath>
#include <limits>

namespace lepton::kernels::gemm {

struct Int8Scale {
  // Of numbers whose largest magnitude is `largest`: q = round(x * inverse) stands for q * scale.
  explicit Int8Scale(float largest) {
    constexpr float kZero = 1e-30f;
    if (!std::isfinite(largest)) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest >= kZero) {
      scale = largest / 127.0f;
      inverse = 127.0f / largest;
    }
  }
  float scale = 0, inverse = 0;
};

}  // namespace lepton::kernels::gemm
