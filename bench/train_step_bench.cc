// Our side of the training-step comparison with PyTorch; bench/train_step_torch.py drives both.
//   train_step_bench check FOLDER PRECISION  writes x.bin, y.bin, weights.bin and losses.txt of
//   five
//                                            steps there, for the other side to repeat
//   train_step_bench time PRECISION STEPS    prints the milliseconds of each step, one a line
// A step is what the training loop does on one rank: forward, backward, gradient norm, AdamW, of an
// MLP 784-1024-1024-10 on a batch of 256.
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/nn/training_program.h"

namespace {

using lepton::nn::TrainingProgram;

constexpr int64_t kBatch = 256, kFeatures = 784, kClasses = 10;

struct Batch {
  std::vector<float> x;
  std::vector<int32_t> classes;
};

// Uniform numbers in [-1, 1] and a class that depends on them, from a fixed linear congruential
// generator (Knuth's MMIX).
Batch MakeBatch() {
  Batch batch;
  uint64_t state = 1;
  for (int64_t row = 0; row < kBatch; ++row) {
    int32_t best = 0;
    for (int64_t i = 0; i < kFeatures; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      batch.x.push_back(static_cast<float>(state >> 40) / static_cast<float>(1 << 23) - 1.0f);
      const float* features = batch.x.data() + row * kFeatures;
      if (i < kClasses && features[i] > features[best]) best = static_cast<int32_t>(i);
    }
    batch.classes.push_back(best);
  }
  return batch;
}

std::unique_ptr<TrainingProgram> MakeProgram(const std::string& precision) {
  TrainingProgram::Options options;
  options.model.hidden = {1024, 1024};
  options.precision = precision;
  options.total_steps = 1'000'000;
  auto program =
      TrainingProgram::Build(lepton::nn::Signature::Features(kFeatures, kClasses), options);
  return std::move(program).value();
}

double Step(TrainingProgram& program, const Batch& batch, uint64_t step) {
  const auto loss = program.ForwardBackward(lepton::nn::Batch::Features(batch.x, kFeatures),
                                            {.classes = batch.classes}, step, /*shard=*/0);
  program.ApplyGradients(step, 1.0 / kBatch);
  return loss.value().sum / kBatch;
}

template <typename T>
bool WriteRaw(const std::filesystem::path& path, std::span<const T> values) {
  const lepton::Status written = lepton::WriteFileAtomic(
      path, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  if (!written.ok()) std::cerr << written.ToString() << "\n";
  return written.ok();
}

int Check(const std::filesystem::path& folder, const std::string& precision) {
  const Batch batch = MakeBatch();
  const auto program = MakeProgram(precision);
  bool ok = WriteRaw(folder / "x.bin", std::span<const float>(batch.x)) &&
            WriteRaw(folder / "y.bin", std::span<const int32_t>(batch.classes)) &&
            WriteRaw(folder / "weights.bin", std::span<const float>(program->weights()));
  std::string losses;
  for (uint64_t step = 0; step < 5; ++step) {
    losses += fmt::format("{}\n", Step(*program, batch, step));
  }
  ok = ok && WriteRaw(folder / "losses.txt", std::span<const char>(losses));
  return ok ? 0 : 1;
}

int Time(const std::string& precision, int steps) {
  const Batch batch = MakeBatch();
  const auto program = MakeProgram(precision);
  constexpr int kWarmUp = 5;
  for (int step = 0; step < kWarmUp; ++step) Step(*program, batch, step);
  for (int step = 0; step < steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    Step(*program, batch, kWarmUp + step);
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    std::cout << fmt::format("{:.4f}\n", taken.count());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 3 && arguments[0] == "check") return Check(arguments[1], arguments[2]);
  if (arguments.size() == 3 && arguments[0] == "time") {
    return Time(arguments[1], std::atoi(arguments[2].c_str()));
  }
  std::cerr << "usage: train_step_bench check FOLDER PRECISION | time PRECISION STEPS\n";
  return 2;
}
