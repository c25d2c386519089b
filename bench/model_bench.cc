// Our side of the comparison of models with PyTorch; bench/model_torch.py drives both.
//   model_bench MODEL PRECISION check FOLDER   writes the batch, the weights (weights.bin, by the
//                                              names and shapes of weights.txt) and the losses of
//                                              five steps
//   model_bench MODEL PRECISION step N         the milliseconds of N training steps, one a line
//   model_bench MODEL PRECISION forward N      the same for the forward pass, also in int8
//   model_bench MODEL PRECISION profile N [forward]
//                                              a roofline of N steps, or forward passes: what each
//                                              kernel took, and how near that is to the limit of
//                                              arithmetic and memory that this process measures
//                                              first; what is furthest above its limit comes first
//   model_bench gpt PRECISION curve FOLDER N TEXT
//                                              trains N steps on the characters of a text file (65
//                                              different ones), with warm-up, cosine and clipping;
//                                              writes what bench/gpt_curve.py needs to do the same
//   model_bench MODEL PRECISION start          milliseconds from the start of the process until
//                                              the first step begins, and until it is done
// MODEL: mlp (784-1024-1024-10, batch 256), resnet18 (32x32, batch 64), gpt (6 layers, 384 wide,
// context 256, batch 12, 65 tokens). A step is what the training loop does on one rank: forward,
// backward, gradient norm, AdamW. At the end of timings: "peak_mib N", the process's largest
// resident memory, and of steps "peak_arena_mib N of at least M", their activations' memory and the
// most of it that is in use at once.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/gemm.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/training_program.h"
#include "runtime/tensor/buffer.h"

namespace {

using lepton::DType;
using lepton::Shape;
using namespace lepton::nn;

struct Work {
  lepton::spec::ModelSpec model;
  DataShape data;
  int64_t batch = 0;
};

Work WorkOf(const std::string& name) {
  Work work;
  if (name == "mlp") {
    work.model.hidden = {1024, 1024};
    work.data = {.features = 784, .outputs = 10};
    work.batch = 256;
  } else if (name == "resnet18") {
    work.model.arch = "resnet18";
    work.data = {
        .kind = DataShape::Kind::kImages, .channels = 3, .height = 32, .width = 32, .outputs = 10};
    work.batch = 64;
  } else if (name == "gpt" || name == "gpt_bytes") {
    const int64_t tokens = name == "gpt" ? 65 : 256;  // of tinyshakespeare, and of any text
    work.model.arch = "transformer";
    work.model.transformer.style = "gpt2";
    work.model.transformer.layers = 6;
    work.model.transformer.heads = 6;
    work.model.transformer.width = 384;
    work.model.activation = "gelu";
    work.data = {.kind = DataShape::Kind::kTokens,
                 .vocabulary = tokens,
                 .context = 256,
                 .outputs = tokens,
                 .per_token = true};
    work.batch = 12;
  } else {
    std::cerr << "model_bench: no model '" << name << "': mlp, resnet18, gpt or gpt_bytes\n";
    std::exit(2);
  }
  return work;
}

// From a fixed linear congruential generator (Knuth's MMIX).
class Numbers {
 public:
  uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  float Unit() { return static_cast<float>(Next() >> 8) / static_cast<float>(1 << 22) - 1.0f; }

 private:
  uint64_t state_ = 1;
};

class Bench {
 public:
  Bench(const std::string& name, const std::string& precision,
        lepton::graph::Profile* profile = nullptr, int64_t curve_steps = 0,
        bool keeps_packs = false)
      : work_(WorkOf(name)) {
    TrainingProgram::Options options;
    options.profile = profile;
    options.model = ResolveModel(work_.model, work_.data).value();
    options.precision = precision == "int8" ? "f32" : precision;
    options.inference_precision = precision;
    // A worker that computes one piece a step reads weights once; inference reads them again.
    options.keeps_packs = keeps_packs;
    options.total_steps = 1'000'000;
    if (curve_steps > 0) {
      options.total_steps = curve_steps;
      options.schedule.name = "cosine";
      options.schedule.warmup_steps = 20;
      options.clip_norm = 1;
    }
    signature_ = MakeSignature(options.model, work_.data).value();
    program_ = TrainingProgram::Build(signature_, options).value();
    MakeBatch();
  }

  double Step(uint64_t step) {
    const LossSum loss = program_->ForwardBackward(batch_, {.classes = classes_}, step, 0).value();
    program_->ApplyGradients(step, 1.0 / loss.count);
    return loss.sum / loss.count;
  }

  void Forward() {
    logits_.resize(Predictions(signature_, batch_) * signature_.outputs);
    if (!program_->Forward(batch_, logits_).ok()) std::abort();
  }

  std::pair<size_t, size_t> largest_plan() const { return program_->largest_plan(); }

  // Batches of random windows of the first nine tenths; the loss of the last tenth at the end.
  bool Curve(const std::filesystem::path& folder, int64_t steps, const std::string& text) {
    const auto bytes = lepton::ReadFile(text, 1 << 26);
    if (!bytes.ok()) std::cerr << bytes.status().ToString() << "\n";
    if (!bytes.ok() || !WriteWeights(folder)) return false;
    std::vector<int32_t> ids;
    std::map<char, int32_t> id_of;
    for (const char c : *bytes) id_of[c] = 0;
    int32_t next = 0;
    for (auto& [c, id] : id_of) id = next++;
    for (const char c : *bytes) ids.push_back(id_of[c]);
    if (next > 65) {
      std::cerr << "model_bench: " << text << " has more than 65 different characters\n";
      return false;
    }
    const int64_t context = work_.data.context, train = static_cast<int64_t>(ids.size()) * 9 / 10;
    std::ofstream starts(folder / "starts.txt"), rates(folder / "rates.txt"),
        losses(folder / "losses.txt");
    const auto window = [&](int64_t row, int64_t start) {
      std::copy_n(ids.begin() + start, context, tokens_.begin() + row * context);
      std::copy_n(ids.begin() + start + 1, context, classes_.begin() + row * context);
      starts << start << (row + 1 == work_.batch ? "\n" : " ");
    };
    Numbers numbers;
    for (int64_t step = 0; step < steps; ++step) {
      for (int64_t row = 0; row < work_.batch; ++row) {
        window(row, numbers.Next() % (train - context - 1));
      }
      rates << fmt::format("{}\n", program_->LearningRate(step));
      losses << fmt::format("{}\n", Step(step)) << std::flush;
    }
    LossSum validation;
    for (int64_t start = train; start + work_.batch * context < static_cast<int64_t>(ids.size());
         start += work_.batch * context) {
      for (int64_t row = 0; row < work_.batch; ++row) window(row, start + row * context);
      logits_.resize(Predictions(signature_, batch_) * signature_.outputs);
      const auto loss = program_->Evaluate(batch_, {.classes = classes_}, logits_).value();
      validation.sum += loss.sum;
      validation.count += loss.count;
    }
    std::cout << fmt::format("{:.6f}\n", validation.sum / validation.count);
    return true;
  }

  bool WriteWeights(const std::filesystem::path& folder) {
    std::ofstream names(folder / "weights.txt");
    for (const ParameterView& view : program_->parameters()) {
      names << view.name;
      for (const int64_t extent : view.shape) names << " " << extent;
      names << "\n";
    }
    // In the order of their names: statistics lie elsewhere in the buffer.
    std::vector<float> weights;
    for (const ParameterView& view : program_->parameters()) {
      const auto values = program_->weights().subspan(view.offset, view.size);
      weights.insert(weights.end(), values.begin(), values.end());
    }
    return WriteRaw(folder / "weights.bin", weights.data(), weights.size() * sizeof(float));
  }

  bool Check(const std::filesystem::path& folder) {
    const size_t input_bytes = batch_.inputs[0].type.bytes();
    const bool ok = WriteRaw(folder / "x.bin", batch_.inputs[0].data, input_bytes) &&
                    WriteRaw(folder / "y.bin", classes_.data(), classes_.size() * 4) &&
                    WriteWeights(folder);
    Forward();
    if (!WriteRaw(folder / "logits.bin", logits_.data(), logits_.size() * sizeof(float))) {
      return false;
    }
    std::ofstream losses(folder / "losses.txt");
    for (uint64_t step = 0; step < 5; ++step) losses << fmt::format("{}\n", Step(step));
    return ok;
  }

 private:
  static bool WriteRaw(const std::filesystem::path& path, const void* data, size_t bytes) {
    const lepton::Status written =
        lepton::WriteFileAtomic(path, {static_cast<const char*>(data), bytes});
    if (!written.ok()) std::cerr << written.ToString() << "\n";
    return written.ok();
  }

  // Uniform numbers in [-1, 1), or tokens; classes that depend on them.
  void MakeBatch() {
    Numbers numbers;
    const InputSpec& input = signature_.inputs.front();
    const Shape shape = input.type.shape.WithBatch(work_.batch, work_.data.context);
    const int64_t elements = shape.elements();
    if (input.type.dtype == DType::kI32) {
      tokens_.resize(elements);
      for (int32_t& token : tokens_) token = static_cast<int32_t>(numbers.Next() % 65);
      batch_.inputs.push_back({tokens_.data(), {DType::kI32, shape}});
      for (const int32_t token : tokens_) classes_.push_back((token * 7 + 3) % 65);
      return;
    }
    x_.resize(elements);
    for (float& value : x_) value = numbers.Unit();
    batch_.inputs.push_back({x_.data(), {DType::kF32, shape}});
    const int64_t row = elements / work_.batch;
    for (int64_t i = 0; i < work_.batch; ++i) {
      int32_t best = 0;
      for (int32_t c = 1; c < 10; ++c) {
        if (x_[i * row + c] > x_[i * row + best]) best = c;
      }
      classes_.push_back(best);
    }
  }

  const Work work_;
  Signature signature_;
  std::unique_ptr<TrainingProgram> program_;
  std::vector<float> x_, logits_;
  std::vector<int32_t> tokens_, classes_;
  Batch batch_;
};

void PrintPeak(const Bench& bench) {
  // Not ru_maxrss, which begins with that of the process that started this one.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) != 0) continue;
    std::cout << fmt::format("peak_mib {}\n", std::atol(line.c_str() + 6) / 1024);
  }
  const auto [arena, bound] = bench.largest_plan();
  if (arena == 0) return;
  std::cout << fmt::format("peak_arena_mib {:.1f} of at least {:.1f}\n", std::ldexp(arena, -20),
                           std::ldexp(bound, -20));
}

double MillisecondsSinceProcessStart() {
  std::ifstream stat("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  text = text.substr(text.rfind(')') + 2);
  size_t at = 0;
  for (int field = 3; field < 22; ++field) at = text.find(' ', at) + 1;
  const double started = std::stod(text.substr(at)) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return 1e3 *
         (static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - started);
}

void Time(Bench& bench, const std::string& what, int count) {
  constexpr int kWarmUp = 3;
  for (int i = 0; i < kWarmUp + count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (what == "step") {
      bench.Step(i);
    } else {
      bench.Forward();
    }
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    if (i >= kWarmUp) std::cout << fmt::format("{:.4f}\n", taken.count());
  }
  PrintPeak(bench);
}

// What this machine does at most, with all threads: products of the precision (best of those of a
// square that stays in the caches), and bytes read and written by copies that do not.
struct Limits {
  double flops = 0, bytes = 0;  // per second
};

template <typename Body>
double BestSeconds(const Body& body) {
  double best = 1e9;
  for (int round = 0; round < 12; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

Limits MeasureLimits(const std::string& precision) {
  namespace gemm = lepton::kernels::gemm;
  constexpr int64_t kSide = 1024;
  const DType dtype = precision == "bf16" ? DType::kBF16 : DType::kF32;
  const gemm::Product product(kSide, kSide, kSide, dtype, {dtype, kSide, 1}, {dtype, kSide, 1});
  lepton::Buffer a(kSide * kSide * 4), b(kSide * kSide * 4), c(kSide * kSide * 4);
  lepton::Buffer packed(product.packed_bytes());
  product.PackRight(b.data(), packed.data());
  const gemm::StoreFinisher store(c.data(), DType::kF32, kSide);
  Limits limits;
  limits.flops = 2.0 * kSide * kSide * kSide /
                 BestSeconds([&] { product.Run(a.data(), packed.data(), store); });
  constexpr int64_t kCopied = int64_t{96} << 20;
  lepton::Buffer source(kCopied), target(kCopied);
  const char* const from = source.as<char>();
  char* const to = target.as<char>();
  limits.bytes = 2.0 * kCopied / BestSeconds([&] {
                   lepton::kernels::ComputeLoop(kCopied, 1 << 20, [&](int64_t begin, int64_t end) {
                     std::memcpy(to + begin, from + begin, end - begin);
                   });
                 });
  return limits;
}

void PrintProfile(const lepton::graph::Profile& profile, int steps, const Limits& limits) {
  struct Row {
    double seconds, limit;  // a step
    lepton::graph::Profile::Line line;
    std::string name;
  };
  std::vector<Row> rows;
  double total = 0, fastest = 0, least = 0;
  for (const auto& [name, line] : profile.lines()) {
    const double limit = std::max(line.flops / limits.flops, line.bytes / limits.bytes) / steps;
    rows.push_back({line.seconds / steps, limit, line, name});
    total += line.seconds / steps;
    least += limit;
    fastest += line.fastest * line.runs / steps;
  }
  std::sort(rows.begin(), rows.end(),
            [](const Row& a, const Row& b) { return a.seconds - a.limit > b.seconds - b.limit; });
  std::cout << fmt::format("limits: {:.0f} GFLOP/s, {:.1f} GB/s\n", 1e-9 * limits.flops,
                           1e-9 * limits.bytes);
  for (const Row& row : rows) {
    std::cout << fmt::format(
        "{:9.3f} ms (fastest {:8.3f}) {:3.0f}% of limit {:4d} x {:7.0f} GFLOP/s {:6.1f} GB/s  {}\n",
        1e3 * row.seconds, 1e3 * row.line.fastest * row.line.runs / steps,
        1e2 * row.limit / row.seconds, row.line.runs / steps,
        1e-9 * row.line.flops / row.line.seconds, 1e-9 * row.line.bytes / row.line.seconds,
        row.name);
  }
  std::cout << fmt::format("{:9.3f} ms (fastest {:8.3f}) in all; at their limits {:.3f} ms\n",
                           1e3 * total, 1e3 * fastest, 1e3 * least);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() >= 3) {
    const std::string& what = arguments[2];
    const bool forward = arguments.size() == 5 && arguments[4] == "forward";
    if (what == "profile" && (arguments.size() == 4 || forward)) {
      lepton::graph::Profile profile;
      Bench bench(arguments[0], arguments[1], &profile, 0, forward);
      const auto run = [&](int i) { forward ? bench.Forward() : static_cast<void>(bench.Step(i)); };
      for (int i = 0; i < 3; ++i) run(i);
      profile = {};
      const int steps = std::max(1, std::atoi(arguments[3].c_str()));
      const Limits limits = MeasureLimits(arguments[1]);
      for (int i = 0; i < steps; ++i) run(3 + i);
      PrintProfile(profile, steps, limits);
      return 0;
    }
    if (what == "curve" && arguments.size() == 6 && arguments[0] == "gpt") {
      const int64_t steps = std::atoll(arguments[4].c_str());
      return Bench("gpt", arguments[1], nullptr, steps).Curve(arguments[3], steps, arguments[5])
                 ? 0
                 : 1;
    }
    Bench bench(arguments[0], arguments[1], nullptr, 0, what == "forward");
    if (what == "check" && arguments.size() == 4) return bench.Check(arguments[3]) ? 0 : 1;
    if (what == "start") {
      const double ready = MillisecondsSinceProcessStart();
      bench.Step(0);
      std::cout << fmt::format("{:.1f} {:.1f}\n", ready, MillisecondsSinceProcessStart());
      return 0;
    }
    if ((what == "step" || what == "forward") && arguments.size() == 4) {
      Time(bench, what, std::atoi(arguments[3].c_str()));
      return 0;
    }
  }
  std::cerr << "usage: model_bench mlp|resnet18|gpt|gpt_bytes f32|bf16|int8 check FOLDER | step N "
               "| forward N | "
               "profile N [forward] | start\n";
  return 2;
}
