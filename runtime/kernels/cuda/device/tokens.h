// Rotary positions, and one row for each text.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// x [rows, heads * size]; row r turns by the angles of position r % positions, whose cosines and
// sines, times the magnitude, are at turns[(position * dims / 2 + pair) * 2]. The first `dims`
// elements of each head turn.
struct RopeArguments {
  int64_t rows = 0, heads = 0, size = 0, positions = 0, dims = 0;
  bool interleaved = false;
  bool bf16 = false;
  const float* turns = nullptr;
  const void* x = nullptr;
  void* y = nullptr;
};
void RunRope(const RopeArguments& arguments, Stream stream);

enum class TokenPool { kFirst, kLast, kMean };
// y [texts, n] of x [texts, tokens, n]; mask [texts, tokens] may be null
// (runtime/ops/pool_tokens.h).
void RunPoolTokens(TokenPool kind, int64_t texts, int64_t tokens, int64_t n, const float* mask,
                   const float* x, float* y, Stream stream);
void RunPoolTokensGrad(TokenPool kind, int64_t texts, int64_t tokens, int64_t n, const float* mask,
                       const float* dy, float* dx, Stream stream);

}  // namespace lepton::kernels::cuda
