// The rule of 8-bit integers (runtime/ops/matmul_int8.h) as the references follow it.
// Threads: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace lepton::kernels::reference {

// Of `count` numbers, which `at` gives, to `q`; returns their scale.
template <typename At>
float QuantizeInt8(int64_t count, const At& at, std::vector<int32_t>& q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(at(i));
    largest = std::max(largest, std::abs(at(i)));
  }
  q.assign(count, 0);
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  if (largest < 1e-30f) return 0;
  const float inverse = 127.0f / largest;
  for (int64_t i = 0; i < count; ++i) {
    q[i] = static_cast<int32_t>(std::nearbyint(at(i) * inverse));
  }
  return largest / 127.0f;
}

}  // namespace lepton::kernels::reference
