// How a raw feature cell becomes a model's input, in training and in serving alike: this one
// function, so that a served answer has the bits of the evaluation's.
// Threads: pure.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace lepton::worker {

// (raw - mean) / scale, computed in double, then rounded to float. A missing cell (NaN) takes the
// mean, which is 0. Values beyond float's range become its largest ones.
inline float NormalizeValue(double raw, double mean, double scale) {
  if (std::isnan(raw)) return 0.0f;
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp((raw - mean) / scale, -kMax, kMax));
}

}  // namespace lepton::worker
