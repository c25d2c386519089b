// One rank of bench/overlap_bench.py: how much of the gradients' exchange hides behind the backward
// pass. GPT steps as the training loop does them (forward, backward, exchange, update), in three
// ways in turn: `alone` without any exchange, `after` with the exchange behind the backward pass,
// `overlap` in buckets beside it. The hidden share is (after - overlap) / (after - alone). Sums are
// compared bit by bit between the ways before anything is timed.
//   overlap_bench RANK SIZE ADDRESS FOLDER [layers width context batch precision steps rounds
//                 bucket_kib...]
// FOLDER is where the ranks find each other's addresses. TCP only.
//
// And, for bench/overhead_bench.py: the overlapped steps alone, over what a job's ranks on one host
// have between them; rank 0 prints the milliseconds of a step.
//   overlap_bench bare RANK SIZE FOLDER BATCH PRECISION STEPS
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/goals.h"
#include "bench/join_ranks.h"
#include "collectives/backends/native_backend.h"
#include "runtime/base/thread_pool.h"
#include "runtime/nn/model_list.h"
#include "worker/train/gradient_exchange.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;

struct Work {
  int64_t layers = 6, width = 384, context = 256, vocabulary = 65, batch = 4;
  std::string precision = "bf16";
  int steps = 3, rounds = 5;
  std::vector<int64_t> bucket_kib = {1024};
};

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "overlap_bench: " << what << "\n";
  std::exit(1);
}

std::unique_ptr<Communicator> Join(int rank, int size, const std::string& address,
                                   const std::filesystem::path& folder,
                                   collectives::TransportChoice transport) {
  const collectives::NativeBackend backend({transport, ""});
  auto gang = collectives::JoinRanks(backend, rank, size, address, folder);
  if (!gang.ok()) Fail(gang.status().ToString());
  return *std::move(gang);
}

class Steps {
 public:
  Steps(const Work& work, Communicator& gang) : gang_(gang) {
    nn::TrainingProgram::Options options;
    options.model.arch = "transformer";
    options.model.transformer.style = "gpt2";
    options.model.transformer.layers = work.layers;
    options.model.transformer.heads = 6;
    options.model.transformer.width = work.width;
    options.model.activation = "gelu";
    const nn::DataShape data = {.kind = nn::DataShape::Kind::kTokens,
                                .vocabulary = work.vocabulary,
                                .context = work.context,
                                .outputs = work.vocabulary,
                                .per_token = true};
    options.model = nn::ResolveModel(options.model, data).value();
    options.precision = work.precision;
    options.total_steps = 1'000'000;
    program_ =
        nn::TrainingProgram::Build(nn::MakeSignature(options.model, data).value(), options).value();
    tokens_.resize(work.batch * work.context);
    for (size_t i = 0; i < tokens_.size(); ++i) {
      tokens_[i] = static_cast<int32_t>((i * 7919 + 31 * gang.rank()) % work.vocabulary);
      classes_.push_back(static_cast<int32_t>((tokens_[i] * 7 + 3) % work.vocabulary));
    }
    batch_.inputs.push_back({tokens_.data(), {DType::kI32, Shape({work.batch, work.context})}});
  }

  nn::TrainingProgram& program() { return *program_; }

  // Without `exchange` this rank's gradients alone.
  void Step(GradientExchange* exchange, bool update = true) {
    if (exchange != nullptr) exchange->Begin(gang_, 1, 1);
    const auto loss = program_->ForwardBackward(batch_, {.classes = classes_}, step_, 0);
    if (!loss.ok()) Fail(loss.status().ToString());
    if (exchange != nullptr) {
      exchange->After();
      float tail[4] = {};
      const auto start = std::chrono::steady_clock::now();
      const Status status = exchange->Reduce(tail);
      waited_ += std::chrono::steady_clock::now() - start;
      if (!status.ok()) Fail(status.ToString());
    }
    if (update) program_->ApplyGradients(step_++, 1e-6);
  }

  struct Times {
    std::vector<double> step, wait;  // ms
  };
  void Time(GradientExchange* exchange, int steps, Times& times) {
    Step(exchange);  // whatever the way before left in caches
    if (!gang_.Barrier().ok()) Fail("barrier");
    waited_ = {};
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) Step(exchange);
    if (!gang_.Barrier().ok()) Fail("barrier");
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    times.step.push_back(taken.count() / steps);
    times.wait.push_back(waited_.count() / steps);
  }

 private:
  Communicator& gang_;
  std::unique_ptr<nn::TrainingProgram> program_;
  std::vector<int32_t> tokens_, classes_;
  nn::Batch batch_;
  uint64_t step_ = 0;
  std::chrono::duration<double, std::milli> waited_{};
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

constexpr double kHidden = 80;  // percent, at least

// Other tenants of a machine only ever add time.
double Fastest(std::vector<double> values) {
  return *std::min_element(values.begin(), values.end());
}

std::vector<float> Sums(Steps& steps, GradientExchange& exchange) {
  steps.Step(&exchange, /*update=*/false);
  const auto gradients = steps.program().gradients();
  return {gradients.begin(), gradients.end()};
}

// The size that the steps find by themselves, in KiB.
int64_t Measured(Steps& steps) {
  GradientExchange exchange(steps.program(), {});
  int taken = 0;
  for (; !exchange.settled(); ++taken) steps.Step(&exchange);
  steps.Step(&exchange);
  std::cout << fmt::format("measured in {} steps: buckets of {} KiB\n", taken,
                           exchange.bucket_bytes() >> 10);
  return exchange.bucket_bytes() >> 10;
}

void Run(const Work& work, Communicator& gang) {
  Steps steps(work, gang);
  const double mib = static_cast<double>(steps.program().gradients().size_bytes()) / (1 << 20);
  if (gang.rank() == 0) {
    std::cout << fmt::format("{} ranks, gradients of {:.1f} MiB\n", gang.size(), mib);
  }
  constexpr int64_t kEverything = int64_t{1} << 40;
  for (int64_t kib : work.bucket_kib) {
    if (kib == 0) kib = Measured(steps);
    const GradientExchange::Options after{kEverything, false}, overlap{kib << 10, true};
    // Only one exchange watches a program at a time.
    std::vector<float> expected, got;
    int buckets = 0;
    {
      GradientExchange exchange(steps.program(), after);
      expected = Sums(steps, exchange);
    }
    {
      GradientExchange exchange(steps.program(), overlap);
      got = Sums(steps, exchange);
      buckets = exchange.buckets();
    }
    if (got != expected) Fail("the ways give different sums");
    Steps::Times alone_ms, after_ms, overlap_ms;
    for (int round = 0; round < work.rounds; ++round) {
      steps.Time(nullptr, work.steps, alone_ms);
      {
        GradientExchange exchange(steps.program(), after);
        steps.Time(&exchange, work.steps, after_ms);
      }
      {
        GradientExchange exchange(steps.program(), overlap);
        steps.Time(&exchange, work.steps, overlap_ms);
      }
    }
    if (gang.rank() != 0) continue;
    const auto print = [&](const char* name, double (*pick)(std::vector<double>)) {
      const double a = pick(alone_ms.step), b = pick(after_ms.step), c = pick(overlap_ms.step);
      std::cout << fmt::format(
          "buckets of {} KiB ({}), {}: step alone {:.0f} ms, exchange after {:.0f} ms, overlapped "
          "{:.0f} ms: {:.0f}% hidden; waits behind backward {:.0f} and {:.0f} ms\n",
          kib, buckets, name, a, b, c, 100 * (b - c) / (b - a), pick(after_ms.wait),
          pick(overlap_ms.wait));
    };
    print("medians", Median);
    print("fastest", Fastest);
    const double alone = Median(alone_ms.step), after_it = Median(after_ms.step);
    goals::AtLeast(fmt::format("exchange hidden among {} ranks, percent", gang.size()),
                   100 * (after_it - Median(overlap_ms.step)) / (after_it - alone), kHidden);
    std::cout.flush();
  }
}

int Bare(const std::vector<std::string>& arguments) {
  if (arguments.size() != 7) Fail("bare: it is started by bench/overhead_bench.py");
  Work work;
  work.vocabulary = 256;
  work.batch = std::stoll(arguments[4]);
  work.precision = arguments[5];
  ThreadPool::SetComputeThreads(1);
  const auto gang = Join(std::stoi(arguments[1]), std::stoi(arguments[2]), "127.0.0.1",
                         arguments[3], collectives::TransportChoice::kAuto);
  Steps steps(work, *gang);
  GradientExchange exchange(steps.program(), {int64_t{1} << 20, true});
  Steps::Times times;
  steps.Step(&exchange);
  steps.Time(&exchange, std::stoi(arguments[6]), times);
  if (gang->rank() == 0) std::cout << fmt::format("{:.3f}\n", times.step[0]);
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments[0] == "bare") return Bare(arguments);
  if (arguments.size() < 4) Fail("it is started by bench/overlap_bench.py");
  Work work;
  const auto number = [&](size_t i, auto value) {
    return i < arguments.size() ? static_cast<decltype(value)>(std::stoll(arguments[i])) : value;
  };
  work.layers = number(4, work.layers);
  work.width = number(5, work.width);
  work.context = number(6, work.context);
  work.batch = number(7, work.batch);
  if (arguments.size() > 8) work.precision = arguments[8];
  work.steps = number(9, work.steps);
  work.rounds = number(10, work.rounds);
  if (arguments.size() > 11) {
    work.bucket_kib.clear();
    for (size_t i = 11; i < arguments.size(); ++i) work.bucket_kib.push_back(number(i, int64_t{0}));
  }
  ThreadPool::SetComputeThreads(1);
  const auto gang = Join(std::stoi(arguments[0]), std::stoi(arguments[1]), arguments[2],
                         arguments[3], collectives::TransportChoice::kTcp);
  Run(work, *gang);
  return 0;
}

}  // namespace
}  // namespace lepton::worker

int main(int argc, char** argv) {
  return lepton::worker::Main({argv + 1, argv + argc});
}
