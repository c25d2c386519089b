// The loop around a program that only records what it is asked to do, on ranks that are threads.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <future>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/train/thread_gang.h"
#include "worker/train/train_loop.h"

namespace lepton::worker::recording {

using testing::ThreadCommunicator;
using testing::ThreadGang;

struct Call {
  uint64_t step;
  uint32_t shard;
  std::vector<float> rows;
};

// One weight; the gradient of a shard is the sum of its rows' only feature.
class RecordingProgram final : public nn::TrainingProgram {
 public:
  const nn::Signature& signature() const override { return signature_; }
  const std::vector<nn::ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override { return weights_; }
  std::span<float> gradients() override { return gradients_; }
  std::span<float> optimizer_state() override { return {}; }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets&, uint64_t step,
                                      uint32_t shard) override {
    const std::span<const float> x = batch.inputs[0].span<const float>();
    calls.push_back({step, shard, {x.begin(), x.end()}});
    gradients_[0] = 0;
    for (const float value : x) gradients_[0] += value;
    if (step == failing_step) return Internal("out of luck");
    const double loss = step == bad_step ? bad_loss : double{gradients_[0]};
    return nn::LossSum{loss, static_cast<double>(batch.rows())};
  }
  double ApplyGradients(uint64_t, double scale) override {
    updates.push_back(gradients_[0] * scale);
    return norm;
  }
  double LearningRate(uint64_t) const override { return 0.5; }
  Status Forward(const nn::Batch&, std::span<float>) override { return Status::Ok(); }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets&,
                               std::span<float> logits) override {
    std::fill(logits.begin(), logits.end(), 0.0f);
    evaluated += batch.rows();
    const auto rows = static_cast<double>(batch.rows());
    return nn::LossSum{0.25 * rows, rows};
  }

  std::vector<Call> calls;
  std::vector<double> updates;
  int64_t evaluated = 0;
  uint64_t bad_step = std::numeric_limits<uint64_t>::max();
  uint64_t failing_step = std::numeric_limits<uint64_t>::max();
  double bad_loss = std::nan("");
  double norm = 1;

 private:
  const nn::Signature signature_ = nn::Signature::Features(1, 1);
  const std::vector<nn::ParameterView> parameters_{{"w", {1}, 0, 1}};
  std::vector<float> weights_{0}, gradients_{0};
};

class RecordingObserver final : public TrainObserver {
 public:
  bool StopRequested() override { return stop_after > 0 && ++asked >= stop_after; }
  bool LeaveRequested() override {
    return computed >= leave_before_reduction_of || committed >= leave_behind;
  }
  Status Computed(uint64_t step, nn::TrainingProgram&) override {
    computed = step;
    return {};
  }
  void Committed(uint64_t step) override {
    committed = step;
    if (on_commit) on_commit(step);
  }
  void Progress(const TrainProgress& report) override { progress.push_back(report); }
  CheckpointDone BeginSlice(uint64_t step, int number, const Slices& slices) override {
    begun_slices.push_back({step, number});
    elements += Elements(slices);
    return Begin({step, number});
  }
  CheckpointDone BeginManifest(const CheckpointPoint& point,
                               const std::vector<storage::Digest>& slices) override {
    manifests.push_back({point.step, slices});
    return BeginWhole(point);
  }
  CheckpointDone BeginCheckpoint(const CheckpointPoint& point, const Slices& slices) override {
    elements += Elements(slices);
    return BeginWhole(point);
  }
  static constexpr int kManifest = -1;
  static storage::Digest DigestOf(uint64_t step, int number = kManifest) {
    return std::string(56, 'd') + std::to_string(1000 + step) + std::to_string(2000 + number);
  }
  // Of what was begun: durable now, or never.
  void Finish(uint64_t step, int number = kManifest, const Status& status = Status::Ok()) {
    promises.at({step, number})
        .set_value(status.ok() ? Result<storage::Digest>(DigestOf(step, number)) : status);
  }
  int stop_after = 0, asked = 0;
  // SIGTERM comes so that the reduction of a step tells the others, or just behind that.
  uint64_t leave_before_reduction_of = 1000, leave_behind = 1000;
  uint64_t computed = 0, committed = 0;
  std::vector<TrainProgress> progress;
  std::vector<uint64_t> checkpoints;
  std::map<uint64_t, Metrics> metrics_of;
  std::map<uint64_t, std::optional<SampleCount>> samples_of;
  // What is begun ends when it is told to, but for what is of such a step or a later one.
  uint64_t at_once_from = 0;
  std::function<void(uint64_t)> on_commit;
  std::vector<std::pair<uint64_t, int>> begun_slices;
  std::vector<std::pair<uint64_t, std::vector<storage::Digest>>> manifests;
  int64_t elements = 0;  // of all that it was given to write

 private:
  using Part = std::pair<uint64_t, int>;  // of which step, slice or kManifest
  static int64_t Elements(const Slices& slices) {
    int64_t sum = 0;
    for (const storage::CheckpointSlice& slice : slices) {
      sum += static_cast<int64_t>(slice.values.size());
    }
    return sum;
  }
  CheckpointDone BeginWhole(const CheckpointPoint& point) {
    checkpoints.push_back(point.step);
    metrics_of[point.step] = point.metrics;
    samples_of[point.step] = point.samples;
    return Begin({point.step, kManifest});
  }
  CheckpointDone Begin(const Part& part) {
    promises[part] = {};
    CheckpointDone done = promises[part].get_future();
    if (part.first >= at_once_from) Finish(part.first, part.second);
    return done;
  }
  std::map<Part, std::promise<Result<storage::Digest>>> promises;
};

struct LoopRank {
  RecordingProgram program;
  RecordingObserver observer;
  Status status;
  TrainOutcome outcome;
};

class TrainLoopTest : public ::testing::Test {
 protected:
  TrainLoopTest() {
    spec_.batch_size = 8;
    spec_.loss = "mse";
    spec_.checkpoint.every_steps = 5;
    spec_.elastic.logical_shards = 4;
    std::vector<int64_t> numbers(26);
    std::iota(numbers.begin(), numbers.end(), 0);
    auto train = std::make_shared<TableExamples>(
        numbers, std::vector<float>(numbers.begin(), numbers.end()), 1);
    train->SetLabels({}, std::vector<float>(26, 0.0f));
    data_.train = data_.train_plain = data_.validation = data_.test = train;
    data_.feature_names = {"a"};
  }

  // Ranks 0 .. size-1 of a gang, from `first_step` to `last_step`.
  std::vector<LoopRank> Run(int size, uint64_t last_step,
                            const std::function<void(int, LoopRank&)>& prepare = {},
                            uint64_t first_step = 0,
                            std::optional<SampleCount> first_samples = SampleCount{}) {
    const auto gang = std::make_shared<ThreadGang>(size);
    std::vector<LoopRank> ranks(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      if (prepare) prepare(rank, ranks[rank]);
      threads.emplace_back([&, rank] {
        ThreadCommunicator communicator(gang, rank);
        const TrainRun run = {.spec = spec_,
                              .data = data_,
                              .program = ranks[rank].program,
                              .gang = communicator,
                              .first_step = first_step,
                              .first_samples = first_samples,
                              .last_step = last_step,
                              .slice_bytes = slice_bytes_};
        Result<TrainOutcome> outcome = RunTrainLoop(run, ranks[rank].observer);
        ranks[rank].status = outcome.status();
        if (outcome.ok()) ranks[rank].outcome = *outcome;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ranks;
  }

  spec::JobSpec spec_;
  PreparedData data_;
  int64_t slice_bytes_ = int64_t{4} << 20;
};

}  // namespace lepton::worker::recording
