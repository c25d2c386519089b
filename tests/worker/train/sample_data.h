// Small made-up datasets with a known answer.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>

namespace lepton::testing {

// `classes` Gaussian blobs on a circle in the first two of three columns, `rows` rows, nearly
// separable; the third column is constant. Label column "target": 0, 1, ...
inline std::string BlobsCsv(int rows, int classes, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> noise(0, 0.35);
  std::string csv = "a,b,c,target\n";
  for (int row = 0; row < rows; ++row) {
    const int label = row % classes;
    const double angle = 2 * M_PI * label / classes;
    csv += fmt::format("{:.5f},{:.5f},5,{}\n", 10 * std::cos(angle) + 10 * noise(random),
                       std::sin(angle) + noise(random), label);
  }
  return csv;
}

// y = 3 a - 2 b + 1 with a little noise.
inline std::string LineCsv(int rows, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  std::string csv = "a,b,target\n";
  for (int row = 0; row < rows; ++row) {
    const double a = normal(random), b = normal(random);
    csv += fmt::format("{:.5f},{:.5f},{:.5f}\n", a, b, 3 * a - 2 * b + 1 + 0.05 * normal(random));
  }
  return csv;
}

}  // namespace lepton::testing
