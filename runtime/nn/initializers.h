// First weights, by name: each number follows from (seed, parameter name, index) alone.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace lepton::nn {

struct FirstValues {
  enum class Kind : uint8_t { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  // The constant; the bound b of a uniform distribution over [-b, b); the standard deviation of a
  // normal one around 0.
  double scale = 0;

  static FirstValues Constant(double value) { return {Kind::kConstant, value}; }
  static FirstValues Normal(double deviation) { return {Kind::kNormal, deviation}; }
  // +-sqrt(6 / in), before relu and its like (He et al. 2015).
  static FirstValues Kaiming(int64_t in);
  // +-sqrt(6 / (in + out)), otherwise (Glorot and Bengio 2010).
  static FirstValues Xavier(int64_t in, int64_t out);
  // Normal with variance 2 / (out * kernel elements): convolutions before relu (He et al. 2015, as
  // in the reference code of residual networks).
  static FirstValues ConvolutionFanOut(int64_t out, int64_t kernel_elements);
};

void Initialize(const FirstValues& first, uint64_t seed, std::string_view name,
                std::span<float> values);

}  // namespace lepton::nn
