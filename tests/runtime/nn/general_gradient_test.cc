// Gradients of the ops that imported models add to ours, against central differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "runtime/formats/onnx/import.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/ops/general/binary_math.h"
#include "runtime/ops/general/unary_math.h"
#include "runtime/ops/op_list.h"

namespace lepton::nn {
namespace {

using graph::Attributes;
using graph::ValueId;

// A node's f32 inputs, all with gradients, and, where `condition`, a bool one before them.
struct GeneralCase {
  const char* label;
  std::string_view op;
  Attributes attributes;
  std::vector<Shape> shapes;
  double low, high;
  bool condition = false;
};

std::vector<float> Numbers(const Shape& shape, double low, double high, uint32_t seed) {
  std::mt19937 bits(seed);
  std::vector<float> numbers;
  for (int64_t i = 0; i < shape.elements(); ++i) {
    numbers.push_back(static_cast<float>(low + (high - low) * bits() / 0x1p32));
  }
  return numbers;
}

class GeneralGradient : public testing::TestWithParam<GeneralCase> {};

TEST_P(GeneralGradient, EqualsFiniteDifferences) {
  const GeneralCase& c = GetParam();
  graph::Graph g(onnx::ImportOps());
  std::vector<ValueId> arguments, inputs;
  std::vector<std::vector<float>> data;
  for (const Shape& shape : c.shapes) {
    inputs.push_back(g.AddInput("x", {DType::kF32, shape}));
    data.push_back(Numbers(shape, c.low, c.high, static_cast<uint32_t>(7 + data.size())));
  }
  ValueId condition = graph::kNoValue;
  std::vector<uint8_t> taken;
  if (c.condition) {
    condition = g.AddInput("condition", {DType::kBool, c.shapes[0]});
    arguments.push_back(condition);
    for (int64_t i = 0; i < c.shapes[0].elements(); ++i) taken.push_back(i % 3 == 0);
  }
  arguments.insert(arguments.end(), inputs.begin(), inputs.end());
  const auto y = g.Add(c.op, arguments, c.attributes);
  ASSERT_TRUE(y.ok()) << y.status().ToString();
  const ValueId weights = g.AddInput("weights", g.type(*y));
  std::vector<float> factors = Numbers(g.type(*y).shape, 0.5, 1.5, 99);
  const ValueId product = g.Add("mul", {*y, weights}).value();
  const auto gradients = graph::AddGradients(g, product, inputs);
  ASSERT_TRUE(gradients.ok()) << gradients.status().ToString();
  ASSERT_TRUE(g.AddOutput(product, false).ok());
  for (const ValueId gradient : *gradients) ASSERT_TRUE(g.AddOutput(gradient, false).ok());
  graph::Executor executor(g, onnx::ImportKernels());
  graph::Plan* const plan = executor.PlanForBatch(1).value();
  for (size_t i = 0; i < inputs.size(); ++i) plan->Bind(inputs[i], data[i].data());
  if (c.condition) plan->Bind(condition, taken.data());
  plan->Bind(weights, factors.data());
  const auto sum = [&] {
    plan->RunPrologue({});
    plan->Run({});
    double sum = 0;
    for (const float number : plan->view(product).span<const float>()) sum += number;
    return sum;
  };
  for (size_t which = 0; which < inputs.size(); ++which) {
    sum();
    const auto values = plan->view((*gradients)[which]).span<const float>();
    const std::vector<float> gradient(values.begin(), values.end());
    ASSERT_EQ(gradient.size(), data[which].size());
    for (size_t i = 0; i < gradient.size(); ++i) {
      float& x = data[which][i];
      const float before = x;
      x = before + 3e-3f;
      const float above = x;
      const double up = sum();
      x = before - 3e-3f;
      const double slope = (up - sum()) / (double{above} - double{x});
      x = before;
      ASSERT_NEAR(gradient[i], slope, 5e-3 * (1 + std::abs(slope)))
          << "input " << which << ", element " << i;
    }
  }
}

GeneralCase Unary(const char* function, double low = -2, double high = 2) {
  return {function, "unary_math", {{"function", function}}, {{3, 5}}, low, high};
}
GeneralCase Binary(const char* label, const char* function, std::vector<Shape> shapes, double low,
                   double high) {
  return {label, "binary_math", {{"function", function}}, std::move(shapes), low, high};
}

const std::vector<GeneralCase>& GeneralCases() {
  static const std::vector<GeneralCase> cases = {
      Unary("abs"),
      Unary("cos"),
      Unary("erf"),
      Unary("exp"),
      Unary("log", 0.3, 3),
      Unary("neg"),
      Unary("reciprocal", 0.4, 3),
      Unary("sigmoid"),
      Unary("sin"),
      Unary("sqrt", 0.3, 3),
      Unary("tanh"),
      Binary("min", "min", {{3, 5}, {3, 5}}, -2, 2),
      Binary("max_of_a_row", "max", {{3, 5}, {5}}, -2, 2),
      Binary("pow", "pow", {{3, 5}, {3, 5}}, 0.3, 2.5),
      Binary("pow_of_a_number", "pow", {{1}, {3, 5}}, 0.3, 2.5),
      Binary("pow_by_a_row", "pow", {{3, 5}, {5}}, 0.3, 2.5),
      {"repeat_of_a_row", "repeat", {{"shape", std::vector<int64_t>{3, 5}}}, {{5}}, -2, 2},
      {"select", "select", {}, {{3, 5}, {3, 5}}, -2, 2, true}};
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, GeneralGradient, testing::ValuesIn(GeneralCases()),
                         [](const auto& info) { return std::string(info.param.label); });

// Those of runtime/ops are walked in engine/gradient_test.cc.
TEST(GeneralGradients, EveryDifferentiableOpIsChecked) {
  int general = 0;
  for (const graph::Op* op : onnx::ImportOps().ops()) {
    if (!op->differentiable() || ops::OpList().Find(op->name()) != nullptr) continue;
    ++general;
    EXPECT_TRUE(std::any_of(GeneralCases().begin(), GeneralCases().end(),
                            [&](const GeneralCase& c) { return c.op == op->name(); }))
        << op->name();
  }
  EXPECT_EQ(general, 4);
}

TEST(GeneralGradients, EveryFunctionThatHasOneIsChecked) {
  std::set<std::string> checked, found;
  for (const GeneralCase& c : GeneralCases()) {
    if (c.op.ends_with("_math")) checked.insert(c.attributes.Text("function"));
  }
  const auto look = [&](std::string_view op, std::string_view function, size_t arguments) {
    graph::Graph g(onnx::ImportOps());
    const ValueId x = g.AddInput("x", {DType::kF32, {2}});
    const auto y =
        g.Add(op, std::vector<ValueId>(arguments, x), {{"function", std::string(function)}});
    ASSERT_TRUE(y.ok()) << y.status().ToString();
    if (g.type(*y).dtype != DType::kF32) return;
    // With x itself, for functions that are flat.
    const ValueId sum = g.Add("add", {*y, x}).value();
    const ValueId wanted[] = {x};
    if (graph::AddGradients(g, sum, wanted).ok()) found.insert(std::string(function));
  };
  for (const std::string_view function : ops::general::UnaryFunctions(DType::kF32)) {
    look("unary_math", function, 1);
  }
  for (const std::string_view function : ops::general::BinaryFunctions(DType::kF32)) {
    look("binary_math", function, 2);
  }
  for (const char* flat : {"ceil", "floor", "round", "sign"}) EXPECT_EQ(found.erase(flat), 1u);
  EXPECT_EQ(found, checked);
}

// 0 to a power that moves stays 0.
TEST(GeneralGradients, PowersOfZeroAreFlat) {
  graph::Graph g(onnx::ImportOps());
  const ValueId a = g.AddInput("a", {DType::kF32, {2}}), b = g.AddInput("b", {DType::kF32, {2}});
  const ValueId y = g.Add("binary_math", {a, b}, {{"function", "pow"}}).value();
  const ValueId wanted[] = {b};
  const ValueId gradient = graph::AddGradients(g, y, wanted).value().front();
  ASSERT_TRUE(g.AddOutput(gradient, false).ok());
  graph::Executor executor(g, onnx::ImportKernels());
  graph::Plan* const plan = executor.PlanForBatch(1).value();
  float base[] = {0, 2}, exponent[] = {2, 3};
  plan->Bind(a, base);
  plan->Bind(b, exponent);
  plan->RunPrologue({});
  plan->Run({});
  const auto slopes = plan->view(gradient).span<const float>();
  EXPECT_EQ(slopes[0], 0);
  EXPECT_NEAR(slopes[1], 8 * std::log(2), 1e-5);
}

}  // namespace
}  // namespace lepton::nn
