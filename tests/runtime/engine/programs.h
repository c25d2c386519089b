// Small programs and data for the tests of runtime/nn.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "runtime/nn/training_program.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::nn {

// Uniform in [-scale, scale), the same for the same seed.
inline std::vector<float> Noise(size_t count, uint64_t seed, float scale = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = RandomBlock({seed, 1, 0, 0}, static_cast<uint32_t>(i / 4))[i % 4];
    values[i] = scale * (2 * UniformFromBits(bits) - 1);
  }
  return values;
}

inline std::vector<int32_t> Classes(size_t count, int classes, uint64_t seed) {
  std::vector<int32_t> labels(count);
  for (size_t i = 0; i < count; ++i) {
    labels[i] = static_cast<int32_t>(RandomBlock({seed, 2, 0, 0}, static_cast<uint32_t>(i))[0] %
                                     static_cast<uint32_t>(classes));
  }
  return labels;
}

// x as a batch of the program's features.
template <typename Program>
Batch Rows(const std::unique_ptr<Program>& program, std::span<const float> x) {
  return Batch::Features(x, program->signature().inputs.front().type.shape.back());
}

inline std::unique_ptr<TrainingProgram> MustBuild(const Signature& signature,
                                                  const TrainingProgram::Options& options) {
  auto program = TrainingProgram::Build(signature, options);
  EXPECT_TRUE(program.ok()) << program.status().ToString();
  return std::move(program).value();
}

template <typename A, typename B>
bool SameBits(const A& a, const B& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0;
}

inline TrainingProgram::Options SmallOptions() {
  TrainingProgram::Options options;
  options.model.hidden = {16};
  options.model.activation = "tanh";
  options.optimizer = {.name = "adam", .lr = 0.05, .weight_decay = 0};
  options.total_steps = 300;
  options.seed = 11;
  return options;
}

}  // namespace lepton::nn
