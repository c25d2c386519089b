// Every differentiable op of the list against central differences of its own forward pass.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using graph::ValueId;

constexpr graph::RunState kGradientState{5, 6, 7};

// sum(coefficients * op(inputs)) as a graph: a number whose gradient by the inputs has something to
// say about every element of the op's first output.
class Probe {
 public:
  Probe(std::string_view op, OpCase& op_case, const graph::KernelTable& kernels)
      : case_(op_case), graph_(ops::OpList()) {
    for (const HostTensor& input : case_.inputs) {
      inputs_.push_back(graph_.AddInput("input", input.type));
    }
    const ValueId y = graph_.Add(op, inputs_, case_.attributes).value();
    const ValueId numbers = Widened(y);
    coefficients_ = RandomTensor(graph_.type(numbers), 77, 0.5, 1.5);
    coefficients_value_ = graph_.AddInput("coefficients", coefficients_.type);
    product_ = graph_.Add("mul", {numbers, coefficients_value_}).value();
    std::vector<ValueId> wanted;
    for (const int index : case_.with_gradient) wanted.push_back(inputs_[index]);
    gradients_ = graph::AddGradients(graph_, product_, wanted).value();
    EXPECT_TRUE(graph_.AddOutput(product_, false).ok());
    for (const ValueId gradient : gradients_) {
      EXPECT_TRUE(graph_.AddOutput(gradient, false).ok());
    }
    executor_ = std::make_unique<graph::Executor>(graph_, kernels);
    plan_ = executor_->PlanForBatch(1).value();
    for (size_t i = 0; i < inputs_.size(); ++i) {
      plan_->Bind(inputs_[i], case_.inputs[i].data.data());
    }
    plan_->Bind(coefficients_value_, coefficients_.data.data());
  }

  double Sum() {
    plan_->RunPrologue(kGradientState);
    plan_->Run(kGradientState);
    double sum = 0;
    for (const float y : plan_->view(product_).span<const float>()) sum += y;
    return sum;
  }

  std::vector<float> Gradient(size_t which) {
    Sum();
    const auto values = plan_->view(gradients_[which]).span<const float>();
    return {values.begin(), values.end()};
  }

 private:
  ValueId Widened(ValueId y) {
    if (graph_.type(y).dtype == DType::kF32) return y;
    return graph_.Add("cast", {y}, {{"to", "f32"}}).value();
  }
  OpCase& case_;
  graph::Graph graph_;
  std::vector<ValueId> inputs_;
  HostTensor coefficients_;
  ValueId coefficients_value_, product_;
  std::vector<ValueId> gradients_;
  std::unique_ptr<graph::Executor> executor_;
  graph::Plan* plan_;
};

// Steps that bf16 represents exactly, so that rounding does not hide the slope.
void MakeExactInBf16(OpCase& op_case) {
  for (float& x : op_case.inputs[0].floats()) x = std::round(x * 4) / 4;
  op_case.step = 0.25;
}

void CheckCase(std::string_view op, OpCase& op_case, const graph::KernelTable& kernels) {
  Probe probe(op, op_case, kernels);
  for (size_t which = 0; which < op_case.with_gradient.size(); ++which) {
    const std::vector<float> gradient = probe.Gradient(which);
    const auto x = op_case.inputs[op_case.with_gradient[which]].floats();
    ASSERT_EQ(gradient.size(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const float before = x[i];
      x[i] = before + static_cast<float>(op_case.step);
      const float above = x[i];
      const double up = probe.Sum();
      x[i] = before - static_cast<float>(op_case.step);
      const double slope = (up - probe.Sum()) / (double{above} - double{x[i]});
      x[i] = before;
      ASSERT_NEAR(gradient[i], slope, 2e-3 * (1 + std::abs(slope)))
          << op << " " << op_case.label << ", input " << op_case.with_gradient[which]
          << ", element " << i;
    }
  }
}

// The reference kernels alone, so that they are checked too.
const graph::KernelTable& ReferenceKernels() {
  static const graph::KernelTable table([] {
    std::vector<graph::KernelEntry> entries;
    for (const graph::KernelEntry& entry : kernels::CpuKernels().entries()) {
      if (entry.implementation == "reference") entries.push_back(entry);
    }
    return entries;
  }());
  return table;
}

class Gradient : public testing::TestWithParam<const graph::Op*> {};

TEST_P(Gradient, EqualsFiniteDifferences) {
  const graph::Op& op = *GetParam();
  int checked = 0;
  for (const auto& [rows, n] : {std::pair{1, 2}, {3, 5}, {4, 19}}) {
    for (OpCase& op_case : CasesFor(op.name(), DType::kF32, rows, n)) {
      if (op_case.with_gradient.empty()) continue;
      if (op.name() == "cast") MakeExactInBf16(op_case);
      CheckCase(op.name(), op_case, ReferenceKernels());
      CheckCase(op.name(), op_case, kernels::CpuKernels());
      ++checked;
    }
  }
  EXPECT_GT(checked, 0) << "no gradient case for op " << op.name() << " in op_cases.cc";
}

std::vector<const graph::Op*> DifferentiableOps() {
  std::vector<const graph::Op*> list;
  for (const graph::Op* op : ops::OpList().ops()) {
    if (op->differentiable()) list.push_back(op);
  }
  return list;
}

INSTANTIATE_TEST_SUITE_P(EveryDifferentiableOp, Gradient, testing::ValuesIn(DifferentiableOps()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace lepton::engine_test
