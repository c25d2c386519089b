// A loss of more logits than a piece may have: the same losses and gradients of the weight as with
// all logits at once, and little memory.
#include "runtime/graph/passes/loss_pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::graph {
namespace {

using engine_test::F32;
using engine_test::HostTensor;
using engine_test::RandomTensor;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int64_t kClasses = 66'001, kWidth = 8, kContext = 130;

struct HeadCase {
  bool bf16, turned, tied, frozen;
};
std::ostream& operator<<(std::ostream& out, const HeadCase& c) {
  return out << (c.bf16 ? "bf16" : "f32") << (c.turned ? " turned" : "") << (c.tied ? " tied" : "")
             << (c.frozen ? " frozen" : "");
}

// Texts through an embedding, a norm and a head. With `whole`, somebody else reads the logits, so
// that they are there at once.
class HeadModel {
 public:
  HeadModel(const HeadCase& c, bool whole) : case_(c), graph_(ops::OpList()) {
    tokens_ = graph_.AddInput("tokens", {DType::kI32, {Shape::kBatch, kContext}});
    embedding_ = Parameter(F32({kClasses, kWidth}));
    const ValueId gain = Parameter(F32({kWidth}));
    const ValueId x = graph_.Add("gather", {embedding_, tokens_}).value();
    const ValueId hidden = graph_.Add("rms_norm", {x, gain}, {{"epsilon", 1e-5}}).value();
    const ValueId weight =
        c.tied ? embedding_
               : Parameter(F32(c.turned ? Shape({kClasses, kWidth}) : Shape({kWidth, kClasses})));
    const ValueId logits =
        graph_
            .Add("matmul", {Rounded(hidden), Rounded(weight)}, {{"transpose_b", int64_t{c.turned}}})
            .value();
    targets_ = graph_.AddInput("targets", {DType::kI32, {Shape::kBatch, kContext}});
    losses_ = graph_.Add("cross_entropy", {logits, targets_}).value();
    gradients_ = AddGradients(graph_, losses_, parameters_, {.recompute_cheap = true}).value();
    EXPECT_TRUE(graph_.AddOutput(losses_, false).ok());
    for (const ValueId gradient : gradients_) EXPECT_TRUE(graph_.AddOutput(gradient, false).ok());
    if (whole) {
      EXPECT_TRUE(graph_.AddOutput(logits, false).ok());
    }
  }

  Plan* PlanFor(int64_t texts) {
    executor_.emplace(graph_, kernels::CpuKernels(), Device{},
                      PlanOptions{.frozen_parameters = case_.frozen});
    return executor_->PlanForBatch(texts).value();
  }

  // The losses, then the gradient of each parameter: embedding, gain, and a head of its own.
  std::vector<std::vector<float>> Run(int64_t texts) {
    Plan* plan = PlanFor(texts);
    names = plan->KernelNames();
    const TensorType type{DType::kI32, {texts, kContext}};
    HostTensor tokens = RandomTensor(type, 1, 0, kClasses),
               targets = RandomTensor(type, 2, 0, kClasses);
    targets.data.as<int32_t>()[3] = -1;
    targets.data.as<int32_t>()[4] = kClasses - 1;
    plan->Bind(tokens_, tokens.data.data());
    plan->Bind(targets_, targets.data.data());
    for (size_t i = 0; i < parameters_.size(); ++i) {
      plan->Bind(parameters_[i], data_[i].data.data());
    }
    plan->RunPrologue({});
    plan->Run({});
    std::vector<std::vector<float>> results;
    std::vector<ValueId> wanted = gradients_;
    wanted.insert(wanted.begin(), losses_);
    for (const ValueId value : wanted) {
      const auto numbers = plan->view(value).span<const float>();
      results.emplace_back(numbers.begin(), numbers.end());
    }
    return results;
  }

  std::vector<std::string> names;  // of the last run's steps

 private:
  ValueId Parameter(const TensorType& type) {
    const ValueId id = graph_.AddParameter("p" + std::to_string(parameters_.size()), type);
    data_.push_back(RandomTensor(type, 10 + parameters_.size(), -1, 1));
    parameters_.push_back(id);
    return id;
  }
  ValueId Rounded(ValueId value) {
    return case_.bf16 ? graph_.Add("cast", {value}, {{"to", "bf16"}}).value() : value;
  }

  const HeadCase case_;
  Graph graph_;
  std::optional<Executor> executor_;
  ValueId tokens_, embedding_, targets_, losses_;
  std::vector<ValueId> parameters_, gradients_;
  std::vector<HostTensor> data_;
};

// |a - b| / |b|, of all numbers.
double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double squares = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(squares / size);
}

class CutLoss : public testing::TestWithParam<HeadCase> {};

TEST_P(CutLoss, GiveTheLossesAndGradientsOfAllLogitsAtOnce) {
  const HeadCase& c = GetParam();
  HeadModel cut(c, false), whole(c, true);
  const auto got = cut.Run(2), wanted = whole.Run(2);
  EXPECT_THAT(cut.names, Contains("linear_cross_entropy: gemm"));
  EXPECT_THAT(cut.names, Contains("linear_cross_entropy_grad: gemm"));
  EXPECT_THAT(cut.names, Each(Not(StartsWith("matmul"))));
  EXPECT_THAT(cut.names, Each(Not(StartsWith("cross_entropy"))));
  EXPECT_THAT(whole.names, Each(Not(HasSubstr("linear_cross_entropy"))));
  ASSERT_EQ(got.size(), wanted.size());
  EXPECT_EQ(got[0], wanted[0]) << "losses";
  // Sums over all classes in two orders, of which each is off by some 3e-6; in bf16 they are then
  // rounded, some to the other side.
  const double bound = c.bf16 ? 2e-4 : 1e-5;
  for (size_t i = 1; i < got.size(); ++i) EXPECT_LT(Distance(got[i], wanted[i]), bound) << i;
  if (!c.tied) {
    EXPECT_EQ(got.back(), wanted.back()) << "the head's gradient";
  }
  EXPECT_EQ(cut.Run(2), got) << "once more";
}

INSTANTIATE_TEST_SUITE_P(Heads, CutLoss,
                         testing::Values(HeadCase{false, false, false, false},
                                         HeadCase{false, true, true, true},
                                         HeadCase{true, false, false, true},
                                         HeadCase{true, true, false, false},
                                         HeadCase{true, true, true, true}));

TEST(CutLosses, NeedTheMemoryOfAPiece) {
  for (const bool bf16 : {false, true}) {
    const HeadCase c{bf16, true, true, true};
    HeadModel cut(c, false), whole(c, true);
    const auto bytes = [](HeadModel& model) {
      return static_cast<double>(model.PlanFor(10)->memory().peak_bytes) / (1 << 20);
    };
    EXPECT_GT(bytes(whole), 320);
    EXPECT_LT(bytes(cut), 64 + 16);
    EXPECT_GT(bytes(cut), 32) << "pieces are smaller than they may be";
  }
}

TEST(CutLosses, ALossOfFewLogitsStaysAsItIs) {
  HeadModel model({false, true, true, true}, false);
  model.Run(1);
  EXPECT_THAT(model.names, Each(Not(HasSubstr("linear_cross_entropy"))));
  EXPECT_THAT(model.names, Contains(StartsWith("cross_entropy_grad")));
}

}  // namespace
}  // namespace lepton::graph
