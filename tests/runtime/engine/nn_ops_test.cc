// Ops of networks with an open batch, in graphs, and against values worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/shape_inference.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "runtime/ops/rope.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using graph::Attributes;
using graph::Graph;
using graph::ValueId;
using Ints = std::vector<int64_t>;

constexpr int64_t kB = Shape::kBatch;

auto Near(std::vector<float> values) {
  return testing::Pointwise(testing::FloatNear(1e-5), std::move(values));
}

HostTensor Tensor(Shape shape, std::vector<float> values) {
  HostTensor tensor = MakeTensor(F32(std::move(shape)));
  std::copy(values.begin(), values.end(), tensor.floats().begin());
  return tensor;
}

// By the kernel that a plan would choose.
std::vector<HostTensor> Outputs(std::string_view op, OpCase op_case) {
  for (const graph::KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.op == op && entry.dtype == op_case.inputs[0].type.dtype && CanRun(entry, op_case)) {
      return RunKernel(entry, op_case, {});
    }
  }
  return {};
}

std::vector<float> Values(HostTensor& tensor) {
  return {tensor.floats().begin(), tensor.floats().end()};
}

// One decoder block on token ids [batch, sequence]: embedding, rms_norm, grouped attention with
// rope, SwiGLU, residuals, and the loss of each token.
struct Decoder {
  Decoder() : graph(ops::OpList()) {
    ids = graph.AddInput("ids", {DType::kI32, {kB, Shape::kSequence}});
    labels = graph.AddInput("labels", {DType::kI32, {kB, Shape::kSequence}});
    const ValueId table = Weight("table", {11, 16});
    const ValueId x = graph.Add("gather", {table, ids}, {{"axis", int64_t{0}}}).value();
    const ValueId normed = graph.Add("rms_norm", {x, Weight("gain", {16})}).value();
    const ValueId q = Linear(normed, "q", 16, 4 * 4);
    const ValueId k = Linear(normed, "k", 16, 2 * 4);
    const ValueId v = Linear(normed, "v", 16, 2 * 4);
    const auto rope = [&](ValueId value) {
      return graph.Add("rope", {value}, {{"size", int64_t{4}}}).value();
    };
    const ValueId mixed =
        graph
            .Add("attention", {rope(q), rope(k), v},
                 {{"heads", int64_t{4}}, {"kv_heads", int64_t{2}}, {"causal", int64_t{1}}})
            .value();
    const ValueId attended = graph.Add("add", {x, Linear(mixed, "o", 16, 16)}).value();
    const ValueId gate = graph.Add("silu", {Linear(attended, "gate", 16, 24)}).value();
    const ValueId up = graph.Add("mul", {gate, Linear(attended, "up", 16, 24)}).value();
    const ValueId y = graph.Add("add", {attended, Linear(up, "down", 24, 16)}).value();
    logits = graph.Add("matmul", {y, table}, {{"transpose_b", int64_t{1}}}).value();
    loss = graph.Add("cross_entropy", {logits, labels}).value();
    gradients = graph::AddGradients(graph, loss, weights).value();
    for (const ValueId value : {logits, loss}) EXPECT_TRUE(graph.AddOutput(value, false).ok());
    for (const ValueId value : gradients) EXPECT_TRUE(graph.AddOutput(value, false).ok());
    for (size_t i = 0; i < weights.size(); ++i) {
      data.push_back(RandomTensor(graph.type(weights[i]), 70 + i, -0.5, 0.5));
    }
  }

  ValueId Weight(const std::string& name, Shape shape) {
    weights.push_back(graph.AddParameter(name, F32(std::move(shape))));
    return weights.back();
  }
  ValueId Linear(ValueId x, const std::string& name, int64_t in, int64_t out) {
    return graph.Add("matmul", {x, Weight(name, {in, out})}).value();
  }
  graph::Plan* PlanFor(graph::Executor& executor, HostTensor& id_tensor, HostTensor& label_tensor) {
    graph::Plan* plan = executor
                            .PlanFor(graph::InputTypesForBatch(graph, id_tensor.type.shape[0],
                                                               id_tensor.type.shape[1]))
                            .value();
    for (size_t i = 0; i < weights.size(); ++i) plan->Bind(weights[i], data[i].data.data());
    plan->Bind(ids, id_tensor.data.data());
    plan->Bind(labels, label_tensor.data.data());
    plan->RunPrologue({});
    plan->Run({});
    return plan;
  }

  Graph graph;
  ValueId ids, labels, logits, loss;
  std::vector<ValueId> weights, gradients;
  std::vector<HostTensor> data;
};

double Total(graph::Plan* plan, ValueId value) {
  double sum = 0;
  for (const float x : plan->view(value).span<const float>()) sum += x;
  return sum;
}

TEST(OpenBatch, ADecoderBlockRunsForAnyBatchAndASequenceKeepsItsBits) {
  Decoder decoder;
  graph::Executor executor(decoder.graph, kernels::CpuKernels());
  HostTensor ids = RandomTensor({DType::kI32, {3, 5}}, 90, 0, 11);
  HostTensor labels = RandomTensor({DType::kI32, {3, 5}}, 91, 0, 11);
  graph::Plan* plan = decoder.PlanFor(executor, ids, labels);
  const auto three = plan->view(decoder.logits).span<const float>();
  const std::vector<float> last(three.end() - 55, three.end());
  HostTensor one = MakeTensor({DType::kI32, {1, 5}});
  std::copy_n(ids.view().as<int32_t>() + 10, 5, one.view().as<int32_t>());
  plan = decoder.PlanFor(executor, one, labels);
  const auto alone = plan->view(decoder.logits).span<const float>();
  EXPECT_EQ(last, std::vector<float>(alone.begin(), alone.end()));
}

// A later token does not change what an earlier one predicts.
TEST(OpenBatch, ACausalBlockDoesNotLookAhead) {
  Decoder decoder;
  graph::Executor executor(decoder.graph, kernels::CpuKernels());
  HostTensor ids = RandomTensor({DType::kI32, {2, 5}}, 90, 0, 11);
  HostTensor labels = RandomTensor({DType::kI32, {2, 5}}, 91, 0, 11);
  const auto logits = [&] {
    const auto view =
        decoder.PlanFor(executor, ids, labels)->view(decoder.logits).span<const float>();
    return std::vector<float>(view.begin(), view.end());
  };
  const std::vector<float> before = logits();
  int32_t& fourth = ids.view().as<int32_t>()[3];
  fourth = (fourth + 1) % 11;
  const std::vector<float> after = logits();
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + 33, after.begin()));
  EXPECT_FALSE(std::equal(before.begin() + 33, before.begin() + 55, after.begin() + 33));
}

TEST(OpenBatch, GradientsOfADecoderBlockEqualFiniteDifferences) {
  Decoder decoder;
  graph::Executor executor(decoder.graph, kernels::CpuKernels());
  HostTensor ids = RandomTensor({DType::kI32, {2, 5}}, 90, 0, 11);
  HostTensor labels = RandomTensor({DType::kI32, {2, 5}}, 91, 0, 11);
  for (size_t w = 0; w < decoder.weights.size(); ++w) {
    const auto values = decoder.data[w].floats();
    for (const size_t i : {size_t{0}, values.size() / 2, values.size() - 1}) {
      graph::Plan* plan = decoder.PlanFor(executor, ids, labels);
      const float gradient = plan->view(decoder.gradients[w]).as<float>()[i];
      const float before = values[i];
      values[i] = before + 5e-3f;
      const double up = Total(decoder.PlanFor(executor, ids, labels), decoder.loss);
      values[i] = before - 5e-3f;
      const double down = Total(decoder.PlanFor(executor, ids, labels), decoder.loss);
      values[i] = before;
      EXPECT_NEAR(gradient, (up - down) / 1e-2, 2e-3 * (1 + std::abs(gradient)))
          << decoder.graph.value(decoder.weights[w]).name << " " << i;
    }
  }
}

TEST(Conv2d, EqualsAProductWorkedOutByHand) {
  OpCase op_case =
      MakeCase("", {{"strides", Ints{2, 1}}, {"pads", Ints{0, 1, 0, 0}}}, {},
               Tensor({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9}), Tensor({1, 1, 1, 2}, {10, 1}));
  auto y = Outputs("conv2d", std::move(op_case));
  EXPECT_EQ(y[0].type.shape, Shape({1, 1, 2, 3}));
  EXPECT_THAT(Values(y[0]), Near({1, 12, 23, 7, 78, 89}));
}

TEST(Pool2d, PaddingNeverWinsAndCountsOnlyWhenAsked) {
  const Attributes attributes = {
      {"kernel", Ints{2, 2}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 0, 0}}};
  const auto image = [] { return Tensor({1, 1, 3, 3}, {-1, -2, -3, -4, -5, -6, -7, -8, -9}); };
  auto largest = Outputs("max_pool2d", MakeCase("", attributes, {}, image()));
  EXPECT_THAT(Values(largest[0]), testing::ElementsAre(-1, -2, -4, -5));
  auto mean = Outputs("average_pool2d", MakeCase("", attributes, {}, image()));
  EXPECT_THAT(Values(mean[0]), Near({-0.25, -1.25, -2.75, -7}));
  auto inside = Outputs("average_pool2d", MakeCase("",
                                                   {{"kernel", Ints{2, 2}},
                                                    {"strides", Ints{2, 2}},
                                                    {"pads", Ints{1, 1, 0, 0}},
                                                    {"include_pad", int64_t{0}}},
                                                   {}, image()));
  EXPECT_THAT(Values(inside[0]), Near({-1, -2.5, -5.5, -7}));
}

TEST(BatchNorm, RunningStatisticsMoveByMomentumToTheUnbiasedVariance) {
  OpCase op_case = MakeCase("", {{"training", int64_t{1}}, {"momentum", 0.25}, {"epsilon", 0.0}},
                            {}, Tensor({2, 1, 1, 2}, {1, 3, 5, 7}), Tensor({1}, {2}),
                            Tensor({1}, {10}), Tensor({1}, {8}), Tensor({1}, {4}));
  auto outputs = Outputs("batch_norm", std::move(op_case));
  const float unit = 1 / std::sqrt(5.0f);  // the variance is 5
  EXPECT_THAT(Values(outputs[0]),
              Near({10 - 6 * unit, 10 - 2 * unit, 10 + 2 * unit, 10 + 6 * unit}));
  EXPECT_FLOAT_EQ(outputs[1].floats()[0], 0.75f * 8 + 0.25f * 4);
  EXPECT_FLOAT_EQ(outputs[2].floats()[0], 0.75f * 4 + 0.25f * 20 / 3);
}

TEST(Rope, TurnsPairsByPositionTimesFrequency) {
  auto y = Outputs("rope",
                   MakeCase("", {{"base", 100.0}}, {}, Tensor({2, 4}, {1, 2, 3, 4, 1, 0, 0, 1})));
  const float c1 = std::cos(1.0f), s1 = std::sin(1.0f), s2 = std::sin(0.1f), c2 = std::cos(0.1f);
  EXPECT_THAT(Values(y[0]), Near({1, 2, 3, 4, c1, -s2, s1, c2}));
}

TEST(Rope, CosinesAndSinesGrowByTheMagnitude) {
  auto y =
      Outputs("rope", MakeCase("", {{"base", 100.0}, {"magnitude", 2.0}, {"limit", int64_t{2}}}, {},
                               Tensor({2, 4}, {1, 2, 3, 4, 1, 0, 0, 1})));
  const float c1 = std::cos(1.0f), s1 = std::sin(1.0f), s2 = std::sin(0.1f), c2 = std::cos(0.1f);
  EXPECT_THAT(Values(y[0]), Near({2, 4, 6, 8, 2 * c1, -2 * s2, 2 * s1, 2 * c2}));
}

// How much slower each of eight pairs turns, by the published formula.
TEST(Rope, YarnSlowsDownPairsThatTurnSeldom) {
  const auto stretches = [](const graph::Attributes& attributes) {
    graph::Attributes plain{{"base", attributes.Float("base", 10000)}};
    const auto before = ops::RopeFrequencies(16, plain);
    const auto after = ops::RopeFrequencies(16, attributes);
    std::vector<float> stretches;
    for (size_t i = 0; i < before.size(); ++i) {
      stretches.push_back(static_cast<float>(after[i] / before[i]));
    }
    return stretches;
  };
  graph::Attributes yarn{{"scaling", "yarn"},
                         {"base", 100.0},
                         {"factor", 4.0},
                         {"original_context", int64_t{64}},
                         {"beta_fast", 4.0}};
  EXPECT_THAT(stretches(yarn), Near({1, 1, 0.8125f, 0.625f, 0.4375f, 0.25f, 0.25f, 0.25f}));
  // From 1.6238 to 4.0320 when the bounds are no whole pairs.
  yarn.Set("truncate", int64_t{0});
  EXPECT_THAT(stretches(yarn), Near({1, 1, 0.88283f, 0.5714f, 0.25997f, 0.25f, 0.25f, 0.25f}));
  // A step where nothing is in between.
  yarn.Set("truncate", int64_t{1});
  yarn.Set("original_context", int64_t{6});
  yarn.Set("beta_fast", 32.0);
  EXPECT_THAT(stretches(yarn), Near({1, 0.25f, 0.25f, 0.25f, 0.25f, 0.25f, 0.25f, 0.25f}));
}

TEST(Gather, AnIndexOutsideTheAxisGivesNan) {
  OpCase op_case = MakeCase("", {{"axis", int64_t{0}}}, {}, Tensor({2, 1}, {5, 6}));
  op_case.inputs.push_back(MakeTensor({DType::kI32, {4}}));
  const int32_t indices[] = {1, -2, 2, -3};
  std::copy_n(indices, 4, op_case.inputs[1].view().as<int32_t>());
  auto y = Outputs("gather", std::move(op_case));
  EXPECT_EQ(y[0].floats()[0], 6);
  EXPECT_EQ(y[0].floats()[1], 5);
  EXPECT_TRUE(std::isnan(y[0].floats()[2]) && std::isnan(y[0].floats()[3]));
}

TEST(Attention, OneVisibleKeyIsItsValue) {
  OpCase op_case = MakeCase("",
                            {{"heads", int64_t{2}},
                             {"kv_heads", int64_t{1}},
                             {"causal", int64_t{1}},
                             {"window", int64_t{1}}},
                            {}, RandomTensor(F32({1, 3, 8}), 1), RandomTensor(F32({1, 3, 4}), 2),
                            RandomTensor(F32({1, 3, 4}), 3));
  HostTensor values = Copy(op_case.inputs[2]);
  auto y = Outputs("attention", std::move(op_case));
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_FLOAT_EQ(y[0].floats()[i], values.floats()[i / 8 * 4 + i % 4]) << i;
  }
}

// What a thread packed for a longer text lies behind the rows of a shorter one.
TEST(Attention, NumbersThatWentWrongOnceDoNotComeBack) {
  const auto gradients = [](int64_t length, bool broken) {
    const Shape shape({3, length, 2 * 32});
    OpCase op_case = MakeCase("", {{"heads", int64_t{2}}, {"causal", int64_t{1}}}, {},
                              RandomTensor(F32(shape), 1, -1, 1));
    for (uint64_t seed : {2, 3, 4}) op_case.inputs.push_back(RandomTensor(F32(shape), seed, -1, 1));
    op_case.inputs.push_back(RandomTensor(F32({3, 2, length}), 5, 3, 6));
    op_case.inputs.push_back(RandomTensor(F32(shape), 6, -1, 1));
    if (broken) {
      for (const int input : {0, 1, 2, 5}) {
        for (float& value : op_case.inputs[input].floats()) value = std::nanf("");
      }
    }
    std::vector<HostTensor> outputs = Outputs("attention_grad", std::move(op_case));
    std::vector<float> all;
    for (HostTensor& output : outputs) {
      all.insert(all.end(), output.floats().begin(), output.floats().end());
    }
    return all;
  };
  const std::vector<float> wanted = gradients(40, false);
  gradients(64, true);
  EXPECT_EQ(gradients(40, false), wanted);
}

}  // namespace
}  // namespace lepton::engine_test
