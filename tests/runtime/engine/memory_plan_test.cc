// The memory plan against lifetimes that the test works out by itself.
#include "runtime/graph/passes/memory_plan.h"

#include <gtest/gtest.h>

#include <cstring>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/shape_inference.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/losses.h"
#include "runtime/nn/model_list.h"
#include "runtime/ops/op_list.h"

namespace lepton::graph {
namespace {

struct TrainingGraph {
  TrainingGraph(std::vector<int64_t> hidden, bool layer_norm, double dropout,
                const std::string& precision, bool recompute = false)
      : graph(ops::OpList()), builder(graph, true, precision) {
    spec::ModelSpec model;
    model.hidden = std::move(hidden);
    model.layer_norm = layer_norm;
    model.dropout = dropout;
    model.activation = "gelu";
    const std::vector<ValueId> inputs = nn::AddInputs(graph, signature);
    x = inputs.front();
    const ValueId logits = nn::BuildModel(builder, signature, model, inputs).value();
    loss = nn::AddLoss(graph, signature, {}, logits).value();
    std::vector<ValueId> parameters;
    for (const auto& parameter : builder.parameters()) parameters.push_back(parameter.value);
    gradients =
        AddGradients(graph, loss.row_losses, parameters, {.recompute_blocks = recompute}).value();
    EXPECT_TRUE(graph.AddOutput(loss.row_losses, false).ok());
    for (const ValueId gradient : gradients) EXPECT_TRUE(graph.AddOutput(gradient, true).ok());
  }
  const nn::Signature signature = nn::Signature::Features(24, 10);
  Graph graph;
  nn::ModelBuilder builder;
  ValueId x = kNoValue;
  nn::LossNodes loss;
  std::vector<ValueId> gradients;
};

// Runs the schedule on a model of memory in which each byte knows the value that was written last:
// a value must find all its bytes its own when it is read, and at the end when it is an output.
void ReplayOnTaggedMemory(const Graph& graph, const std::vector<TensorType>& types,
                          const MemoryPlan& plan) {
  std::vector<ValueId> owner(plan.peak_bytes, kNoValue);
  const auto expect_owned = [&](ValueId value, const std::string& reader) {
    const size_t offset = plan.offsets[value];
    if (offset == kNotInArena) return;
    for (size_t i = 0; i < types[value].bytes(); ++i) {
      ASSERT_EQ(owner[offset + i], value) << "value lost before " << reader;
    }
  };
  const Schedule schedule = ScheduleLiveNodes(graph);
  const auto run = [&](const std::vector<NodeId>& nodes) {
    for (const NodeId id : nodes) {
      const Node& node = graph.nodes()[id];
      for (const ValueId output : node.outputs) {
        const size_t offset = plan.offsets[output];
        if (offset == kNotInArena) continue;
        ASSERT_LE(offset + types[output].bytes(), plan.peak_bytes);
        ASSERT_EQ(offset % Buffer::kAlignment, 0u);
        std::fill_n(owner.begin() + static_cast<int64_t>(offset), types[output].bytes(), output);
      }
      // After the outputs: they may not take the place of what the node still reads.
      for (const ValueId input : node.inputs) expect_owned(input, node.name);
    }
  };
  run(schedule.prologue);
  for (int step = 0; step < 2; ++step) run(schedule.body);  // the prologue's values survive a step
  for (const Output& output : graph.outputs()) expect_owned(output.value, "the end");
}

struct PlanCase {
  std::vector<int64_t> hidden;
  bool layer_norm;
  double dropout;
  std::string precision;
};

class MemoryPlanOf : public testing::TestWithParam<PlanCase> {};

TEST_P(MemoryPlanOf, KeepsEveryLiveValueAndStaysNearItsLowerBound) {
  const auto& [hidden, layer_norm, dropout, precision] = GetParam();
  const TrainingGraph training(hidden, layer_norm, dropout, precision);
  for (const int64_t batch : {1, 7, 64, 300}) {
    const auto types =
        InferTypes(training.graph, InputTypesForBatch(training.graph, batch)).value();
    const MemoryPlan plan = PlanMemory(training.graph, ScheduleLiveNodes(training.graph), types);
    ReplayOnTaggedMemory(training.graph, types, plan);
    EXPECT_GE(plan.peak_bytes, plan.lower_bound_bytes);
    EXPECT_LE(static_cast<double>(plan.peak_bytes), 1.25 * plan.lower_bound_bytes)
        << "batch " << batch;
    size_t all = 0;
    for (const Lifetime& life : plan.lifetimes) all += life.bytes;
    if (hidden.size() > 2) {
      EXPECT_LT(plan.peak_bytes, all) << "nothing is shared";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Mlps, MemoryPlanOf,
                         testing::Values(PlanCase{{}, false, 0, "f32"},
                                         PlanCase{{16}, false, 0, "f32"},
                                         PlanCase{{128, 64}, false, 0, "bf16"},
                                         PlanCase{{40, 200, 40, 300, 8}, true, 0.2, "f32"},
                                         PlanCase{{64, 64, 64, 64, 64, 64}, true, 0.1, "bf16"}));

// A micro-batch of `batch` rows with first weights, bound to a plan.
struct MicroBatch {
  MicroBatch(TrainingGraph& training, int64_t batch)
      : executor(training.graph, kernels::CpuKernels()),
        plan(executor.PlanForBatch(batch).value()),
        x(batch * 24),
        labels(batch, 4),
        weights(training.builder.parameter_elements()),
        gradients(weights.size()) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
    nn::InitializeParameters(training.builder.parameters(), 3, weights);
    plan->Bind(training.x, x.data());
    plan->Bind(training.loss.targets, labels.data());
    for (size_t i = 0; i < training.gradients.size(); ++i) {
      const auto& parameter = training.builder.parameters()[i];
      plan->Bind(parameter.value, weights.data() + parameter.view.offset);
      plan->Bind(training.gradients[i], gradients.data() + parameter.view.offset);
    }
  }
  void Run() {
    plan->RunPrologue({1, 2, 3});
    plan->Run({1, 2, 3});
  }

  Executor executor;
  Plan* const plan;
  std::vector<float> x;
  std::vector<int32_t> labels;
  std::vector<float> weights, gradients;
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

TEST(Recomputation, NeedsLessMemoryAndChangesNoBit) {
  for (const char* precision : {"f32", "bf16"}) {
    const std::vector<int64_t> hidden(12, 64);
    TrainingGraph plain(hidden, true, 0.2, precision);
    TrainingGraph recomputing(hidden, true, 0.2, precision, /*recompute=*/true);
    MicroBatch kept(plain, 500), repeated(recomputing, 500);
    kept.Run();
    repeated.Run();
    EXPECT_TRUE(SameBits(kept.gradients, repeated.gradients)) << precision;
    EXPECT_LT(repeated.plan->memory().peak_bytes, 0.6 * kept.plan->memory().peak_bytes)
        << precision;
    EXPECT_GT(recomputing.graph.nodes().size(), plain.graph.nodes().size() + 30);
  }
}

// Poisoned memory before each run: a kernel that relies on what a reused place held would show.
TEST(MemoryPlan, ResultsDoNotDependOnWhatTheArenaHeld) {
  TrainingGraph training({32, 48}, true, 0.3, "f32");
  MicroBatch batch(training, 9);
  batch.Run();
  const std::vector<float> first = batch.gradients;
  for (size_t i = 0; i < training.graph.values().size(); ++i) {
    if (batch.plan->memory().offsets[i] == kNotInArena) continue;
    const TensorView& view = batch.plan->view(static_cast<ValueId>(i));
    std::memset(view.data, 0xff, view.type.bytes());  // NaN
  }
  std::fill(batch.gradients.begin(), batch.gradients.end(), -1.0f);
  batch.Run();
  EXPECT_TRUE(SameBits(first, batch.gradients));
}

// A training graph's gradients for batches of several sizes, all of one executor.
class SharedArena : public testing::Test {
 protected:
  SharedArena()
      : training_({32, 48}, true, 0, "bf16"),
        weights_(training_.builder.parameter_elements()),
        x_(kMost * 24),
        labels_(kMost, 4) {
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(i % 7) - 3;
    nn::InitializeParameters(training_.builder.parameters(), 3, weights_);
  }
  std::vector<float> Gradients(Executor& executor, int64_t batch) {
    Plan* const plan = executor.PlanForBatch(batch).value();
    std::vector<float> gradients(weights_.size());
    plan->Bind(training_.x, x_.data());
    plan->Bind(training_.loss.targets, labels_.data());
    for (size_t i = 0; i < training_.gradients.size(); ++i) {
      const auto& parameter = training_.builder.parameters()[i];
      plan->Bind(parameter.value, weights_.data() + parameter.view.offset);
      plan->Bind(training_.gradients[i], gradients.data() + parameter.view.offset);
    }
    plan->RunPrologue({1, 2, 3}, 1);  // once for each plan: what it computes must stay
    plan->Run({1, 2, 3});
    return gradients;
  }
  static constexpr int64_t kMost = 300;
  TrainingGraph training_;
  std::vector<float> weights_, x_;
  std::vector<int32_t> labels_;
};

TEST_F(SharedArena, PlansTakeTurnsInTheMemoryOfTheLargest) {
  Executor shared(training_.graph, kernels::CpuKernels(), {}, {.fuse = false});
  size_t largest = 0;
  for (const int64_t batch : {7, 64, 300, 7, 1, 64, 300}) {
    Executor alone(training_.graph, kernels::CpuKernels(), {}, {.fuse = false});
    EXPECT_TRUE(SameBits(Gradients(shared, batch), Gradients(alone, batch))) << batch;
    const MemoryPlan& memory = shared.PlanForBatch(batch).value()->memory();
    EXPECT_GT(memory.kept_bytes, 0u) << "the prologue keeps nothing: the test shows little";
    largest = std::max(largest, memory.peak_bytes - memory.kept_bytes);
    EXPECT_EQ(shared.arena_bytes(), largest) << batch;
  }
}

TEST(MemoryPlan, WhatParametersAloneSayNeedsNoArena) {
  Graph graph(ops::OpList());
  const ValueId p = graph.AddParameter("p", {DType::kF32, Shape({3})});
  const ValueId sum = graph.Add("add", {p, p}).value();
  ASSERT_TRUE(graph.AddOutput(sum, false).ok());
  Executor executor(graph, kernels::CpuKernels());
  Plan* const plan = executor.PlanFor({}).value();
  std::vector<float> values = {1, 2, 3};
  plan->Bind(p, values.data());
  plan->RunPrologue({});
  plan->Run({});
  EXPECT_EQ(plan->view(sum).as<float>()[2], 6);
  EXPECT_EQ(executor.arena_bytes(), 0u);
}

}  // namespace
}  // namespace lepton::graph
