// Shape rules and their errors, autodiff, dead code, hoisting, kernel choice and the plan cache.
#include "runtime/graph/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/shape_inference.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"

namespace lepton::graph {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TensorType F32(Shape shape) {
  return {DType::kF32, std::move(shape)};
}

struct BadNode {
  std::string op;
  std::vector<TensorType> inputs;
  Attributes attributes;
  std::string message;  // part of it
};

class RefusedNode : public testing::TestWithParam<BadNode> {};

TEST_P(RefusedNode, SaysWhichInputIsWrong) {
  const BadNode& bad = GetParam();
  Graph graph(ops::OpList());
  std::vector<ValueId> inputs;
  for (const TensorType& type : bad.inputs) inputs.push_back(graph.AddInput("x", type));
  const auto result = graph.Add(bad.op, inputs, bad.attributes, "the/node");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(result.status().message(), HasSubstr("the/node: "));
  EXPECT_THAT(result.status().message(), HasSubstr(bad.message));
}

constexpr int64_t kB = Shape::kBatch;
INSTANTIATE_TEST_SUITE_P(
    EveryRule, RefusedNode,
    testing::Values(
        BadNode{"convolve", {F32({2})}, {}, "no op named 'convolve'"},
        BadNode{"relu", {F32({2}), F32({2})}, {}, "has 2 inputs; must have 1"},
        BadNode{"relu", {{DType::kI32, {2}}}, {}, "input 0 is i32[2]; must be f32"},
        BadNode{"relu", {F32({2})}, {{"slope", 0.1}}, "unknown attribute 'slope'"},
        BadNode{"add", {F32({2, 3}), F32({3, 2})}, {}, "shapes [2, 3] and [3, 2] do not broadcast"},
        BadNode{"mul",
                {F32({kB, 3}), F32({4, 3})},
                {},
                "shapes [batch, 3] and [4, 3] do not broadcast"},
        BadNode{"matmul", {F32({kB, 3}), F32({4, 5})}, {}, "inner extents differ"},
        BadNode{"matmul", {F32({3}), F32({3, 5})}, {}, "input 0 is f32[3]; must be f32 of rank 2"},
        BadNode{"matmul", {F32({2, 3}), {DType::kBF16, {3, 5}}}, {}, "input 1 is bf16[3, 5]"},
        BadNode{"bias_add", {F32({kB, 3}), F32({4})}, {}, "must be f32[3]"},
        BadNode{"scale", {F32({3})}, {{"by", 2.0}}, "unknown attribute 'by'"},
        BadNode{"cast", {F32({3})}, {{"to", "i8"}}, "to is 'i8'; must be f32 or bf16"},
        BadNode{"cast", {F32({3})}, {{"to", "f32"}}, "input 0 is f32[3]; must be bf16"},
        BadNode{"dropout", {F32({3})}, {{"rate", 1.0}}, "must be in [0, 1)"},
        BadNode{"reduce", {F32({3})}, {{"axis", int64_t{1}}, {"kind", "sum"}}, "must be an axis"},
        BadNode{"reduce", {F32({3})}, {{"axis", int64_t{0}}, {"kind", "max"}}, "sum or mean"},
        BadNode{"expand", {F32({3}), F32({2, 4})}, {{"axis", int64_t{0}}}, "must be f32[4]"},
        BadNode{"softmax", {F32({3})}, {}, "must be f32 of rank 2"},
        BadNode{"layer_norm", {F32({kB, 4}), F32({4}), F32({5})}, {}, "input 2 is f32[5]"},
        BadNode{"cross_entropy", {F32({kB, 4}), F32({kB})}, {}, "must be i32[batch]"},
        BadNode{"binary_cross_entropy", {F32({kB, 4}), F32({kB, 3})}, {}, "must be f32[batch, 4]"},
        BadNode{"mse", {F32({kB, 1}), F32({kB})}, {}, "must be f32[batch, 1]"},
        BadNode{"distillation", {F32({kB, 4}), F32({kB, 5})}, {}, "must be f32[batch, 4]"}));

TEST(Graph, InfersOpenShapesThroughAnMlp) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 64}));
  const ValueId w = graph.AddParameter("w", F32({64, 10}));
  const ValueId h = graph.Add("matmul", {x, w}).value();
  EXPECT_EQ(graph.type(h), F32({kB, 10}));
  const auto types = InferTypes(graph, InputTypesForBatch(graph, 7));
  ASSERT_TRUE(types.ok());
  EXPECT_EQ((*types)[h], F32({7, 10}));
  EXPECT_THAT(graph.ToString(), HasSubstr("%2 f32[batch, 10] = matmul(%0, %1)"));
}

TEST(Graph, RefusesInputsThatDoNotFitTheirDeclaration) {
  Graph graph(ops::OpList());
  graph.AddInput("x", F32({kB, 64}));
  for (const TensorType& bad : {F32({7, 65}), F32({0, 64}), F32({64}), {DType::kI32, {7, 64}}}) {
    const auto types = InferTypes(graph, std::vector<TensorType>{bad});
    ASSERT_FALSE(types.ok());
    EXPECT_THAT(types.status().message(), HasSubstr("input x is " + bad.ToString()));
  }
  EXPECT_FALSE(InferTypes(graph, {}).ok());
}

TEST(Graph, KeepsItsValuesAndNodesWhereTheyAre) {
  Graph graph(ops::OpList());
  ValueId x = graph.AddInput("x", F32({4}));
  x = *graph.Add("relu", {x}, {}, "first");
  const TensorType& type = graph.type(x);
  const Node& node = graph.nodes().front();
  for (int i = 0; i < 1000; ++i) {
    graph.AddParameter("p", F32({4}));
    ASSERT_TRUE(graph.Add("relu", {x}).ok());
  }
  const Graph moved = std::move(graph);
  EXPECT_EQ(&type, &moved.type(x));
  EXPECT_EQ(type.shape, Shape({4}));
  EXPECT_EQ(&node, &moved.nodes().front());
}

TEST(Graph, RefusesAnInputAsExternalOutput) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({2}));
  EXPECT_FALSE(graph.AddOutput(x, true).ok());
  EXPECT_FALSE(graph.AddOutput(99, false).ok());
}

TEST(Autodiff, AddsUpTheUsesOfAValue) {
  // y = x * x + 3 x: dy/dx = 2 x + 3.
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({3}));
  const ValueId square = graph.Add("mul", {x, x}).value();
  const ValueId triple = graph.Add("scale", {x}, {{"factor", 3.0}}).value();
  const ValueId y = graph.Add("add", {square, triple}).value();
  const ValueId dx = AddGradients(graph, y, std::vector{x}).value()[0];
  ASSERT_TRUE(graph.AddOutput(dx, true).ok());
  Executor executor(graph, kernels::CpuKernels());
  Plan* plan = executor.PlanForBatch(1).value();
  float in[3] = {-1, 0, 2};
  float out[3] = {};
  plan->Bind(x, in);
  plan->Bind(dx, out);
  plan->Run({});
  EXPECT_THAT(out, ElementsAre(1, 3, 7));
}

TEST(Autodiff, NamesWhatTheObjectiveDoesNotDependOn) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({3}));
  const ValueId other = graph.AddParameter("other", F32({3}));
  const ValueId y = graph.Add("relu", {x}).value();
  const auto gradients = AddGradients(graph, y, std::vector{other});
  ASSERT_FALSE(gradients.ok());
  EXPECT_THAT(gradients.status().message(), HasSubstr("does not depend on other"));
}

TEST(Autodiff, NamesANodeWithoutGradient) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({3}));
  const ValueId y = graph.Add("fill", {x}, {{"value", 1.0}}, "the/constant").value();
  const auto gradients = AddGradients(graph, y, std::vector{x});
  ASSERT_FALSE(gradients.ok());
  EXPECT_THAT(gradients.status().message(), HasSubstr("the/constant: op fill has no gradient"));
}

TEST(LiveNodes, DropsWhatNobodyNeedsAndHoistsWhatOnlyParametersFeed) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 4}));
  const ValueId w = graph.AddParameter("w", F32({4, 2}));
  const ValueId narrow = graph.Add("cast", {w}, {{"to", "bf16"}}).value();
  ASSERT_TRUE(graph.Add("relu", {x}).ok());  // dead
  const ValueId left = graph.Add("cast", {x}, {{"to", "bf16"}}).value();
  const ValueId y = graph.Add("matmul", {left, narrow}).value();
  ASSERT_TRUE(graph.AddOutput(y, false).ok());
  const Schedule schedule = ScheduleLiveNodes(graph);
  EXPECT_THAT(schedule.prologue, ElementsAre(0));
  EXPECT_THAT(schedule.body, ElementsAre(2, 3));
}

TEST(LiveNodes, FirstLayersInputGradientIsNeverComputed) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 4}));
  const ValueId w = graph.AddParameter("w", F32({4, 2}));
  const ValueId y = graph.Add("matmul", {x, w}).value();
  const ValueId dw = AddGradients(graph, y, std::vector{w}).value()[0];
  ASSERT_TRUE(graph.AddOutput(dw, true).ok());
  const Schedule schedule = ScheduleLiveNodes(graph);
  int products = 0;
  for (const NodeId id : schedule.body) products += graph.nodes()[id].op->name() == "matmul";
  EXPECT_EQ(products, 2);  // y feeds the seed's shape, and dw; not dx
}

TEST(KernelTable, TakesTheFirstThatSaysYes) {
  static const auto no = [](const KernelRequest&) { return false; };
  static const auto yes = [](const KernelRequest&) { return true; };
  const KernelTable table({{"relu", DType::kF32, "choosy", no, nullptr},
                           {"relu", DType::kBF16, "other type", yes, nullptr},
                           {"tanh", DType::kF32, "other op", yes, nullptr},
                           {"relu", DType::kF32, "second", yes, nullptr},
                           {"relu", DType::kF32, "reference", yes, nullptr}});
  const std::vector<TensorType> types = {F32({2})};
  const Attributes none;
  EXPECT_EQ(table.Select({"relu", &none, types, types, {}}).value()->implementation, "second");
  const auto missing = table.Select({"gelu", &none, types, types, {}});
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.status().message(), HasSubstr("no kernel for gelu"));
  EXPECT_FALSE(table.Select({"relu", &none, types, types, {DeviceKind::kCuda, 0}}).ok());
}

TEST(Executor, KeepsThePlansThatWereUsedLast) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 4}));
  ASSERT_TRUE(graph.AddOutput(graph.Add("relu", {x}).value(), false).ok());
  Executor executor(graph, kernels::CpuKernels());
  bool made = false;
  Plan* first = executor.PlanForBatch(1, &made).value();
  EXPECT_TRUE(made);
  for (size_t batch = 2; batch <= Executor::kMostPlans; ++batch) {
    ASSERT_TRUE(executor.PlanForBatch(static_cast<int64_t>(batch), &made).ok());
    EXPECT_TRUE(made);
  }
  EXPECT_EQ(executor.PlanForBatch(1, &made).value(), first);
  EXPECT_FALSE(made);
  ASSERT_TRUE(executor.PlanForBatch(1000, &made).ok());  // evicts batch 2, not batch 1
  ASSERT_TRUE(executor.PlanForBatch(1, &made).ok());
  EXPECT_FALSE(made);
  ASSERT_TRUE(executor.PlanForBatch(2, &made).ok());
  EXPECT_TRUE(made);
}

}  // namespace
}  // namespace lepton::graph
