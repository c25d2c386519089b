// Optimisers against values worked out by hand or by the papers' formulas in double; schedules;
// norms.
#include "runtime/nn/optimizers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/nn/outer_optimizer.h"
#include "runtime/nn/schedules.h"

namespace lepton::nn {
namespace {

// One update of all weights, which all decay.
void Update(const spec::OptimizerSpec& optimizer, double lr, uint64_t step, double scale,
            std::span<float> weights, std::span<const float> gradients, std::span<float> state) {
  const UpdateRange all{0, static_cast<int64_t>(weights.size()), true};
  UpdateWeights(optimizer, lr, step, scale, {&all, 1}, weights, gradients, state);
}

TEST(Sgd, WithoutMomentumStepsAlongTheGradient) {
  const spec::OptimizerSpec sgd{.name = "sgd", .weight_decay = 0, .momentum = 0};
  EXPECT_EQ(OptimizerStateSize(sgd, 10), 0);
  std::vector<float> w = {1, -2};
  Update(sgd, 0.5, 0, 0.25, w, std::vector<float>{4, 8}, {});
  EXPECT_FLOAT_EQ(w[0], 0.5f);   // 1 - 0.5 * 1
  EXPECT_FLOAT_EQ(w[1], -3.0f);  // -2 - 0.5 * 2
}

TEST(Optimizer, MatricesAloneDecayIfAsked) {
  const std::vector<ParameterView> parameters = {{"a.weight", {2, 1}, 0, 2},
                                                 {"a.bias", {1}, 2, 1},
                                                 {"b.bias", {1}, 3, 1},
                                                 {"mean", {1}, 5, 1, true},
                                                 {"b.weight", {1, 1}, 4, 1}};
  for (const char* name : {"sgd", "adam", "adamw"}) {
    spec::OptimizerSpec optimizer{.name = name, .weight_decay = 0.1, .decay = "matrices"};
    const auto ranges = UpdateRanges(optimizer, parameters);
    ASSERT_EQ(ranges.size(), 3u);
    std::vector<float> w(5, 1), g(5, 0), state(10, 0);
    UpdateWeights(optimizer, 0.5, 0, 1, ranges, w, g, state);
    EXPECT_LT(w[0], 1);
    EXPECT_EQ(w[0], w[1]);
    EXPECT_EQ(w[2], 1);
    EXPECT_EQ(w[3], 1);
    EXPECT_EQ(w[4], w[0]);
    optimizer.decay = "all";
    ASSERT_EQ(UpdateRanges(optimizer, parameters).size(), 1u);
    EXPECT_EQ(UpdateRanges(optimizer, parameters)[0].end, 5);
  }
}

// Two rounds of a trained parameter and a statistic, whose changes sum to 4 and 8 over 4 rows.
TEST(OuterOptimizer, StepsByHandAndStatisticsBecomeTheirMean) {
  const std::vector<ParameterView> parameters = {{"w", {1}, 0, 1}, {"mean", {1}, 1, 1, true}};
  const std::vector<float> changes = {4, 8};
  struct Case {
    const char* name;
    double momentum;
    float first, second;  // the trained parameter, from 1
  };
  // g = 1 in both. nesterov: v = 1, 1.5; steps of 0.5 * (0.5 v + 1). sgd: of 0.5 * v.
  for (const Case& one : {Case{"nesterov", 0.5, 0.25f, -0.625f}, Case{"sgd", 0.5, 0.5f, -0.25f},
                          Case{"nesterov", 0, 0.5f, 0.0f}, Case{"sgd", 0, 0.5f, 0.0f}}) {
    OuterOptimizer outer({.name = one.name, .lr = 0.5, .momentum = one.momentum}, parameters);
    EXPECT_EQ(outer.state().size(), one.momentum > 0 ? 1u : 0u);
    std::vector<float> w = {1, 10};
    outer.Step(changes, 0.25, w);
    EXPECT_FLOAT_EQ(w[0], one.first) << one.name;
    EXPECT_FLOAT_EQ(w[1], 8);
    outer.Step(changes, 0.25, w);
    EXPECT_FLOAT_EQ(w[0], one.second) << one.name;
    EXPECT_FLOAT_EQ(w[1], 6);
  }
}

TEST(Sgd, MomentumAndDecayByHand) {
  const spec::OptimizerSpec sgd{.name = "sgd", .weight_decay = 0.1, .momentum = 0.5};
  EXPECT_EQ(OptimizerStateSize(sgd, 10), 10);
  std::vector<float> w = {1};
  std::vector<float> state = {0};
  Update(sgd, 0.1, 0, 1, w, std::vector<float>{2}, state);
  EXPECT_FLOAT_EQ(state[0], 2.1f);  // 2 + 0.1 * 1
  EXPECT_FLOAT_EQ(w[0], 0.79f);     // 1 - 0.1 * 2.1
  Update(sgd, 0.1, 1, 1, w, std::vector<float>{-1}, state);
  EXPECT_FLOAT_EQ(state[0], 0.129f);  // 0.5 * 2.1 - 1 + 0.1 * 0.79
  EXPECT_FLOAT_EQ(w[0], 0.7771f);
}

// Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; in double.
struct AdamInDouble {
  spec::OptimizerSpec spec;
  double w, m = 0, v = 0;
  void Step(double lr, int t, double g) {
    if (spec.name == "adam") g += spec.weight_decay * w;
    m = spec.beta1 * m + (1 - spec.beta1) * g;
    v = spec.beta2 * v + (1 - spec.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(spec.beta1, t));
    const double v_hat = v / (1 - std::pow(spec.beta2, t));
    if (spec.name == "adamw") w -= lr * spec.weight_decay * w;
    w -= lr * m_hat / (std::sqrt(v_hat) + spec.epsilon);
  }
};

TEST(Adam, FirstStepIsTheRateAlongTheSign) {
  const spec::OptimizerSpec adam{.name = "adam", .weight_decay = 0};
  std::vector<float> w = {1, 1, 1};
  std::vector<float> state(6);
  Update(adam, 0.01, 0, 1, w, std::vector<float>{100, -1e-3f, 0}, state);
  EXPECT_NEAR(w[0], 0.99, 1e-6);
  EXPECT_NEAR(w[1], 1.01, 1e-6);
  EXPECT_FLOAT_EQ(w[2], 1);
}

TEST(Adam, ManyStepsEqualTheFormulas) {
  for (const char* name : {"adam", "adamw"}) {
    const spec::OptimizerSpec spec{.name = name, .weight_decay = 0.1, .beta1 = 0.8, .beta2 = 0.95};
    constexpr int kCount = 70;  // more than a vector, not a multiple of one
    std::vector<float> w(kCount), g(kCount), state(2 * kCount);
    std::vector<AdamInDouble> wanted;
    for (int i = 0; i < kCount; ++i) {
      w[i] = 0.1f * static_cast<float>(i) - 3;
      wanted.push_back({spec, w[i]});
    }
    for (int t = 1; t <= 20; ++t) {
      const double lr = 0.01 * t;
      for (int i = 0; i < kCount; ++i) {
        g[i] = static_cast<float>(std::sin(i + 3 * t));
        wanted[i].Step(lr, t, 0.5 * g[i]);
      }
      Update(spec, lr, t - 1, 0.5, w, g, state);
    }
    for (int i = 0; i < kCount; ++i) EXPECT_NEAR(w[i], wanted[i].w, 2e-5) << name << " " << i;
  }
}

// Moments of a weight without gradient shrink for ever; they end at 0, not among the denormals.
TEST(Adam, ForgottenMomentsReachZero) {
  const spec::OptimizerSpec adam{.name = "adam", .weight_decay = 0, .beta2 = 0.9};
  std::vector<float> w(40, 1), g(40, 1e-3f), state(80);
  Update(adam, 0.01, 0, 1, w, g, state);
  std::fill(g.begin(), g.end(), 0.0f);
  for (uint64_t step = 1; step < 2000; ++step) Update(adam, 0.01, step, 1, w, g, state);
  for (const float moment : state) ASSERT_EQ(moment, 0);
}

TEST(GlobalNorm, EqualsTheDefinitionAndShowsBadValues) {
  std::vector<float> values(100003, 0.5f);
  EXPECT_NEAR(GlobalNorm(values), 0.5 * std::sqrt(100003.0), 1e-9);
  EXPECT_EQ(GlobalNorm(std::vector<float>{3, 4}), 5);
  EXPECT_EQ(GlobalNorm({}), 0);
  EXPECT_NEAR(GlobalNorm(std::vector<float>{1e30f, 1e30f}), std::sqrt(2.0) * 1e30, 1e24);
  values[50000] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(GlobalNorm(values)));
  values[777] = std::nanf("");
  EXPECT_TRUE(std::isnan(GlobalNorm(values)));
}

TEST(CheckOptimizer, NamesTheField) {
  const auto message = [](spec::OptimizerSpec spec) { return CheckOptimizer(spec).message(); };
  EXPECT_EQ(message({}), "");
  EXPECT_TRUE(message({.name = "lion"}).starts_with("optimizer.name"));
  EXPECT_TRUE(message({.lr = 0}).starts_with("optimizer.lr"));
  EXPECT_TRUE(message({.lr = std::nan("")}).starts_with("optimizer.lr"));
  EXPECT_TRUE(message({.weight_decay = -1}).starts_with("optimizer.weight_decay"));
  EXPECT_TRUE(message({.momentum = 1}).starts_with("optimizer.momentum"));
  EXPECT_TRUE(message({.beta1 = 1}).starts_with("optimizer.beta1"));
  EXPECT_TRUE(message({.beta2 = -0.1}).starts_with("optimizer.beta2"));
  EXPECT_TRUE(message({.epsilon = 0}).starts_with("optimizer.epsilon"));
}

TEST(Schedule, ConstantAfterLinearWarmup) {
  const spec::ScheduleSpec schedule{.name = "constant", .warmup_steps = 4};
  const double wanted[] = {0.25, 0.5, 0.75, 1, 1, 1};
  for (int step = 0; step < 6; ++step) {
    EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 1, 100, step), wanted[step]) << step;
  }
}

TEST(Schedule, CosineFallsFromTheRateToItsFloor) {
  const spec::ScheduleSpec schedule{.name = "cosine", .warmup_steps = 2, .min_lr_ratio = 0.1};
  EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 2, 103, 1), 2);
  EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 2, 103, 2), 2);
  EXPECT_NEAR(ScheduledRate(schedule, 2, 103, 52), 2 * 0.55, 1e-12);  // half way
  EXPECT_NEAR(ScheduledRate(schedule, 2, 103, 102), 0.2, 1e-12);
  EXPECT_NEAR(ScheduledRate(schedule, 2, 103, 5000), 0.2, 1e-12);
}

TEST(Schedule, StepMultipliesByGamma) {
  const spec::ScheduleSpec schedule{.name = "step", .step_size = 10, .gamma = 0.5};
  EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 8, 100, 9), 8);
  EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 8, 100, 10), 4);
  EXPECT_DOUBLE_EQ(ScheduledRate(schedule, 8, 100, 29), 2);
}

TEST(Schedule, ChecksNameTheField) {
  EXPECT_TRUE(CheckSchedule({.name = "linear"}).message().starts_with("schedule.name"));
  EXPECT_TRUE(CheckSchedule({.name = "step"}).message().starts_with("schedule.step_size"));
  EXPECT_TRUE(CheckSchedule({.warmup_steps = -1}).message().starts_with("schedule.warmup_steps"));
}

}  // namespace
}  // namespace lepton::nn
