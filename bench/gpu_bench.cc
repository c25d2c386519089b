// Training steps on a GPU: tokens a second of a GPT-2, and where a step goes, kernel by kernel, as
// shares of what the GPU can do at most. The device's first losses are compared with the host's
// before anything is timed.
//   gpu_bench [--layers 12] [--width 768] [--heads 12] [--context 1024] [--batch 8] [--steps 20]
//             [--precision bf16] [--check 1] [--cudnn any|required]
// The defaults are GPT-2 124M. Exits with 77, and says why, where there is no GPU.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "runtime/graph/profile.h"
#include "runtime/kernels/cuda/cuda_device.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/training_program.h"

namespace {

using lepton::graph::Profile;
using lepton::kernels::cuda::CudaDevice;
using lepton::nn::Batch;
using lepton::nn::TrainingProgram;

// What a GPU can do at most, from the vendor's data sheets: dense bf16, and memory.
struct Ceiling {
  const char* name;
  double flops, bytes;  // a second
};
constexpr Ceiling kCeilings[] = {
    {"H200", 989e12, 4.8e12},
    {"H100", 989e12, 3.35e12},
    {"A100", 312e12, 2.0e12},
};

struct Arguments {
  std::map<std::string, std::string> values = {
      {"layers", "12"},        {"width", "768"}, {"heads", "12"},       {"context", "1024"},
      {"batch", "8"},          {"steps", "20"},  {"precision", "bf16"}, {"check", "1"},
      {"vocabulary", "50257"}, {"cudnn", "any"}};
  int64_t number(const std::string& name) const { return std::atoll(values.at(name).c_str()); }
};

class Training {
 public:
  Training(const Arguments& arguments, int64_t layers, int64_t batch, CudaDevice* device,
           Profile* profile = nullptr)
      : batch_size_(batch), context_(arguments.number("context")) {
    lepton::spec::ModelSpec model = lepton::spec::DefaultModel("transformer", "gpt2");
    model.transformer.layers = layers;
    model.transformer.width = arguments.number("width");
    model.transformer.heads = arguments.number("heads");
    const lepton::nn::DataShape data{.kind = lepton::nn::DataShape::Kind::kTokens,
                                     .vocabulary = arguments.number("vocabulary"),
                                     .context = context_,
                                     .outputs = arguments.number("vocabulary"),
                                     .per_token = true};
    TrainingProgram::Options options;
    options.model = lepton::nn::ResolveModel(model, data).value();
    options.optimizer = {.name = "adamw", .lr = 6e-4, .weight_decay = 0.1, .decay = "matrices"};
    options.clip_norm = 1;
    options.precision = arguments.values.at("precision");
    options.total_steps = 1'000'000;
    options.backend = device;
    options.profile = profile;
    program_ =
        TrainingProgram::Build(lepton::nn::MakeSignature(options.model, data).value(), options)
            .value();
    uint64_t state = 1;
    for (int64_t i = 0; i < tokens(); ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      ids_.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(data.vocabulary)));
    }
    targets_.assign(ids_.begin() + 1, ids_.end());
    targets_.push_back(ids_.front());
  }

  double Step(uint64_t step) {
    const Batch batch{{{ids_.data(), {lepton::DType::kI32, {batch_size_, context_}}}}};
    const auto loss = program_->ForwardBackward(batch, {.classes = targets_}, step, 0).value();
    program_->ApplyGradients(step, 1 / loss.count);
    return loss.sum / loss.count;
  }
  int64_t tokens() const { return batch_size_ * context_; }
  int64_t parameters() const {
    int64_t count = 0;
    for (const auto& view : program_->parameters()) count += view.size;
    return count;
  }

 private:
  const int64_t batch_size_, context_;
  std::unique_ptr<TrainingProgram> program_;
  std::vector<int32_t> ids_, targets_;
};

// The first losses of a shallow model of the same width, on both sides.
bool AgreesWithHost(const Arguments& arguments, CudaDevice& device) {
  Arguments small = arguments;
  small.values["context"] = std::to_string(std::min<int64_t>(64, arguments.number("context")));
  small.values["vocabulary"] = "1000";
  Training on_host(small, 1, 2, nullptr), on_device(small, 1, 2, &device);
  for (uint64_t step = 0; step < 3; ++step) {
    const double wanted = on_host.Step(step), got = on_device.Step(step);
    fmt::print("check: step {}: loss {:.5f} on the host, {:.5f} on the device\n", step, wanted,
               got);
    if (!(std::abs(got - wanted) < 0.02 * std::abs(wanted))) return false;
  }
  return true;
}

void PrintProfile(const Profile& profile, const Ceiling* ceiling, int64_t steps) {
  double total = 0;
  std::vector<std::pair<double, std::string>> order;
  for (const auto& [name, line] : profile.lines()) {
    total += line.seconds;
    order.push_back({-line.seconds, name});
  }
  std::sort(order.begin(), order.end());
  fmt::print("kernel by kernel, each waited for ({:.2f} ms a step so):\n", 1e3 * total / steps);
  fmt::print("{:>8} {:>6} {:>9} {:>9} {:>9}  {}\n", "ms/step", "share", "TFLOP/s", "GB/s",
             "of peak", "kernel");
  for (size_t i = 0; i < std::min<size_t>(order.size(), 25); ++i) {
    const Profile::Line& line = profile.lines().at(order[i].second);
    std::string peak = "-";
    if (ceiling != nullptr) {
      const double share =
          std::max(line.flops / ceiling->flops, line.bytes / ceiling->bytes) / line.seconds;
      peak = fmt::format("{:.0f}%", 100 * share);
    }
    fmt::print("{:>8.3f} {:>5.1f}% {:>9.1f} {:>9.0f} {:>9}  {}\n", 1e3 * line.seconds / steps,
               100 * line.seconds / total, line.flops / line.seconds / 1e12,
               line.bytes / line.seconds / 1e9, peak, order[i].second);
  }
}

int Run(const Arguments& arguments) {
  auto opened = lepton::kernels::cuda::OpenCudaDevice();
  if (!opened.ok()) {
    fmt::print("gpu_bench: skipped: {}\n", opened.status().message());
    return 77;
  }
  CudaDevice& device = **opened;
  const Ceiling* ceiling = nullptr;
  for (const Ceiling& known : kCeilings) {
    if (ceiling == nullptr && device.description().find(known.name) != std::string::npos) {
      ceiling = &known;
    }
  }
  const bool has_cudnn = device.attentions() != nullptr;
  fmt::print("device: {}, {} cuDNN\n", device.description(), has_cudnn ? "with" : "without");
  if (!has_cudnn && arguments.values.at("cudnn") == "required") {
    fmt::print("gpu_bench: cuDNN is required, and not there (see above)\n");
    return 1;
  }
  if (arguments.number("check") != 0 && !AgreesWithHost(arguments, device)) {
    fmt::print("gpu_bench: the device's losses are not the host's: nothing is timed\n");
    return 1;
  }
  const int64_t steps = arguments.number("steps");
  std::vector<double> seconds;
  double loss = 0;
  int64_t tokens = 0, parameters = 0;
  {
    Training training(arguments, arguments.number("layers"), arguments.number("batch"), &device);
    tokens = training.tokens();
    parameters = training.parameters();
    for (uint64_t step = 0; step < 3; ++step) training.Step(step);  // plan, record, first replay
    for (int64_t step = 0; step < steps; ++step) {
      const auto start = std::chrono::steady_clock::now();
      loss = training.Step(3 + step);
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double attention = 12.0 * arguments.number("layers") * arguments.number("width") *
                           arguments.number("context") / 2;
  const double flops = static_cast<double>(tokens) * (6.0 * parameters + attention);
  fmt::print(
      "{} M parameters, {} tokens a step, {}: {:.2f} ms a step (fastest {:.2f}, slowest "
      "{:.2f}), {:.0f} tokens/s, {:.1f} TFLOP/s, loss {:.4f}\n",
      parameters / 1000000, tokens, arguments.values.at("precision"), 1e3 * median,
      1e3 * seconds.front(), 1e3 * seconds.back(), static_cast<double>(tokens) / median,
      flops / median / 1e12, loss);
  Profile profile;
  Training training(arguments, arguments.number("layers"), arguments.number("batch"), &device,
                    &profile);
  constexpr int64_t kProfiled = 3;
  for (uint64_t step = 0; step < kProfiled; ++step) training.Step(step);
  PrintProfile(profile, ceiling, kProfiled);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = std::string(argv[i]).starts_with("--") ? argv[i] + 2 : argv[i];
    if (!arguments.values.contains(name)) {
      std::cerr << "gpu_bench: unknown option " << argv[i] << "\n";
      return 2;
    }
    arguments.values[name] = argv[i + 1];
  }
  return Run(arguments);
}
