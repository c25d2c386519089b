// The weights of a convolution as the matrix that a window is multiplied with: a row per channel
// that comes out, in it tap by tap the weights of all channels that go in, rounded to bf16.
// Threads: plain values.
#pragma once

#include <cstdint>

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {

class WeightRows {
 public:
  // `forward`: from x to y; else from dy to dx, for which the weights' outputs go in, and the taps
  // go in reverse.
  WeightRows(bool forward, int64_t taps, int64_t in_channels, int64_t out_channels)
      : forward_(forward), taps_(taps), in_channels_(in_channels), out_channels_(out_channels) {}

  int64_t length() const { return taps_ * in_channels_; }

  // Rows [first, first + count), one after the other. Uses ThreadMemory<4>.
  void Take(const TensorView& weights, int64_t first, int64_t count, uint16_t* to) const {
    forward_ ? Forward(weights, first, count, to) : Backward(weights, first, count, to);
  }

 private:
  // Weights lie as [out, in, taps].
  void Forward(const TensorView& weights, int64_t first, int64_t count, uint16_t* to) const {
    const int64_t row = length();
    auto* rounded = reinterpret_cast<uint16_t*>(ThreadMemory<4>(row * 2));
    for (int64_t j = 0; j < count; ++j, to += row) {
      const uint16_t* from = AsBf16(weights, (first + j) * row, row, rounded);
      for (int64_t tap = 0; tap < taps_; ++tap) {
        for (int64_t in = 0; in < in_channels_; ++in) {
          to[tap * in_channels_ + in] = from[in * taps_ + tap];
        }
      }
    }
  }
  void Backward(const TensorView& weights, int64_t first, int64_t count, uint16_t* to) const {
    auto* rounded = reinterpret_cast<uint16_t*>(ThreadMemory<4>(count * taps_ * 2));
    for (int64_t in = 0; in < in_channels_; ++in) {
      const uint16_t* from =
          AsBf16(weights, (in * out_channels_ + first) * taps_, count * taps_, rounded);
      for (int64_t j = 0; j < count; ++j) {
        uint16_t* row = to + j * length() + in;
        for (int64_t tap = 0; tap < taps_; ++tap) {
          row[tap * in_channels_] = from[j * taps_ + taps_ - 1 - tap];
        }
      }
    }
  }
  // Weights [first, first + count), in their order.
  static const uint16_t* AsBf16(const TensorView& weights, int64_t first, int64_t count,
                                uint16_t* to) {
    if (weights.type.dtype == DType::kBF16) return weights.as<uint16_t>() + first;
    simd::BestLoops().to_bf16(count, weights.as<float>() + first, to);
    return to;
  }

  const bool forward_;
  const int64_t taps_, in_channels_, out_channels_;
};

}  // namespace lepton::kernels::conv
