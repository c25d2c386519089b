// Whole programs: they learn, repeat themselves bit for bit, and refuse what they cannot build.
#include "runtime/nn/training_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/tensor/buffer.h"
#include "tests/runtime/engine/programs.h"

namespace lepton::nn {
namespace {

using testing::HasSubstr;

struct Learner {
  std::string activation, optimizer, precision, loss;
  bool layer_norm = false;
};

class Learns : public testing::TestWithParam<Learner> {};

TEST_P(Learns, ExclusiveOr) {
  TrainingProgram::Options options = SmallOptions();
  options.model.activation = GetParam().activation;
  options.model.layer_norm = GetParam().layer_norm;
  options.optimizer.name = GetParam().optimizer;
  options.precision = GetParam().precision;
  options.loss = GetParam().loss;
  if (options.optimizer.name == "sgd") options.optimizer.lr = 0.2;
  const bool classes = options.loss == "cross_entropy";
  const Signature signature = Signature::Features(2, classes ? 2 : 1);
  auto program = MustBuild(signature, options);
  const std::vector<float> x = {-1, -1, -1, 1, 1, -1, 1, 1};
  const std::vector<int32_t> labels = {0, 1, 1, 0};
  const std::vector<float> values = {0, 1, 1, 0};
  const Targets targets = classes ? Targets{.classes = labels} : Targets{.values = values};
  const double first = program->ForwardBackward(Rows(program, x), targets, 0, 0).value().sum;
  for (uint64_t step = 0; step < 300; ++step) {
    ASSERT_TRUE(program->ForwardBackward(Rows(program, x), targets, step, 0).ok());
    ASSERT_TRUE(std::isfinite(program->ApplyGradients(step, 0.25)));
  }
  std::vector<float> logits(4 * signature.outputs);
  const double last = program->Evaluate(Rows(program, x), targets, logits).value().sum;
  EXPECT_LT(last, 0.1 * first);
  for (int row = 0; row < 4; ++row) {
    const bool one = classes ? logits[2 * row + 1] > logits[2 * row]
                             : logits[row] > (options.loss == "mse" ? 0.5f : 0.0f);
    EXPECT_EQ(one, labels[row] == 1) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryPart, Learns,
                         testing::Values(Learner{"tanh", "adam", "f32", "cross_entropy"},
                                         Learner{"relu", "adamw", "f32", "cross_entropy"},
                                         Learner{"gelu", "sgd", "f32", "cross_entropy"},
                                         Learner{"sigmoid", "adam", "f32", "cross_entropy"},
                                         Learner{"relu", "adamw", "bf16", "cross_entropy", true},
                                         Learner{"tanh", "adam", "f32", "binary_cross_entropy"},
                                         Learner{"tanh", "sgd", "bf16", "binary_cross_entropy"},
                                         Learner{"gelu", "adam", "f32", "mse"}));

// Two Gaussian-like blobs, batches of a training set, dropout, clipping and a schedule.
TEST(TrainingProgram, SeparatesTwoBlobs) {
  constexpr int kRows = 400;
  std::vector<float> x = Noise(2 * kRows, 5);
  std::vector<int32_t> labels(kRows);
  for (int i = 0; i < kRows; ++i) {
    labels[i] = i % 2;
    x[2 * i] += labels[i] == 1 ? 1.5f : -1.5f;
  }
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {32, 16}, .activation = "relu", .dropout = 0.1, .layer_norm = true};
  options.optimizer = {.name = "adamw", .lr = 0.02};
  options.schedule = {.name = "cosine", .warmup_steps = 5};
  options.total_steps = 60;
  options.clip_norm = 1;
  auto program = MustBuild(Signature::Features(2, 2), options);
  for (uint64_t step = 0; step < 60; ++step) {
    const size_t first = (step % 8) * 50;
    const Targets targets{.classes = std::span(labels).subspan(first, 50)};
    ASSERT_TRUE(
        program
            ->ForwardBackward(Rows(program, std::span(x).subspan(2 * first, 100)), targets, step, 0)
            .ok());
    program->ApplyGradients(step, 1.0 / 50);
  }
  std::vector<float> logits(2 * kRows);
  ASSERT_TRUE(program->Forward(Rows(program, x), logits).ok());
  int right = 0;
  for (int i = 0; i < kRows; ++i) right += (logits[2 * i + 1] > logits[2 * i]) == (labels[i] == 1);
  EXPECT_GE(right, kRows * 99 / 100);
}

TEST(TrainingProgram, GradientsEqualFiniteDifferencesOfTheLoss) {
  constexpr float kStep = 2e-3f;  // layer norm bends: a long step would measure its curvature
  for (const bool distill : {false, true}) {
    TrainingProgram::Options options = SmallOptions();
    options.model = {.hidden = {5, 4}, .activation = "gelu", .layer_norm = true};
    options.distill = distill;
    auto program = MustBuild(Signature::Features(3, 4), options);
    const std::vector<float> x = Noise(15, 3);
    const std::vector<float> teacher = Noise(20, 4, 3);
    const std::vector<int32_t> labels = Classes(5, 4, 9);
    const Targets targets{.classes = labels, .teacher_logits = teacher};
    ASSERT_TRUE(program->ForwardBackward(Rows(program, x), targets, 0, 0).ok());
    const std::vector<float> gradients(program->gradients().begin(), program->gradients().end());
    for (size_t i = 0; i < gradients.size(); ++i) {
      const float before = program->weights()[i];
      program->weights()[i] = before + kStep;
      const double up = program->ForwardBackward(Rows(program, x), targets, 0, 0).value().sum;
      program->weights()[i] = before - kStep;
      const double down = program->ForwardBackward(Rows(program, x), targets, 0, 0).value().sum;
      program->weights()[i] = before;
      ASSERT_NEAR(gradients[i], (up - down) / (2 * kStep), 5e-3) << i;
    }
  }
}

TEST(TrainingProgram, GradientIsTheSumOverRows) {
  auto program = MustBuild(Signature::Features(6, 3), SmallOptions());
  const std::vector<float> x = Noise(6 * 10, 3);
  const std::vector<int32_t> labels = Classes(10, 3, 4);
  double sum = 0;
  std::vector<double> total(program->gradients().size());
  for (int row = 0; row < 10; ++row) {
    sum += program
               ->ForwardBackward(Rows(program, std::span(x).subspan(6 * row, 6)),
                                 {.classes = std::span(labels).subspan(row, 1)}, 0, 0)
               .value()
               .sum;
    for (size_t i = 0; i < total.size(); ++i) total[i] += program->gradients()[i];
  }
  EXPECT_NEAR(program->ForwardBackward(Rows(program, x), {.classes = labels}, 0, 0).value().sum,
              sum, 1e-4);
  for (size_t i = 0; i < total.size(); ++i) {
    EXPECT_NEAR(program->gradients()[i], total[i], 1e-4);
  }
}

TEST(TrainingProgram, DistillationLossEqualsTheFormula) {
  TrainingProgram::Options options = SmallOptions();
  options.distill = true;
  options.distill_options = {.temperature = 3, .alpha = 0.3};
  auto program = MustBuild(Signature::Features(4, 3), options);
  const std::vector<float> x = Noise(8, 1);
  const std::vector<float> teacher = {1, 2, -1, 0.5f, 0, 3};
  const std::vector<int32_t> labels = {2, 0};
  std::vector<float> logits(6);
  ASSERT_TRUE(program->Forward(Rows(program, x), logits).ok());
  double wanted = 0;
  for (int row = 0; row < 2; ++row) {
    double p[3], q[3], hard[3], sp = 0, sq = 0, sh = 0;
    for (int i = 0; i < 3; ++i) {
      sp += p[i] = std::exp(teacher[3 * row + i] / 3.0);
      sq += q[i] = std::exp(logits[3 * row + i] / 3.0);
      sh += hard[i] = std::exp(double{logits[3 * row + i]});
    }
    double divergence = 0;
    for (int i = 0; i < 3; ++i) divergence += p[i] / sp * std::log((p[i] / sp) / (q[i] / sq));
    wanted += 0.3 * 9 * divergence - 0.7 * std::log(hard[labels[row]] / sh);
  }
  const Targets targets{.classes = labels, .teacher_logits = teacher};
  EXPECT_NEAR(program->ForwardBackward(Rows(program, x), targets, 0, 0).value().sum, wanted, 1e-5);
  // Evaluate is the label loss alone.
  double label_loss = program->Evaluate(Rows(program, x), targets, logits).value().sum;
  options.distill = false;
  const auto plain = MustBuild(Signature::Features(4, 3), options);
  EXPECT_NEAR(plain->ForwardBackward(Rows(plain, x), targets, 0, 0).value().sum, label_loss, 1e-5);
}

// Both compute in one arena, which a larger batch moves; as large as this, what was there before is
// no memory any more.
TEST(TrainingProgram, AnEvaluationOfManyRowsBetweenTwoStepsChangesNoBit) {
  for (const char* precision : {"f32", "bf16"}) {
    TrainingProgram::Options options = SmallOptions();
    options.model.hidden = {60000};
    options.precision = precision;
    const auto plain = MustBuild(Signature::Features(6, 3), options);
    const auto asked = MustBuild(Signature::Features(6, 3), options);
    const std::vector<float> many = Noise(600 * 6, 5);
    const std::vector<int32_t> labels = Classes(600, 3, 7);
    std::vector<float> first(600 * 3), last(600 * 3);
    for (uint64_t step = 0; step < 3; ++step) {
      const std::vector<float> x = Noise(40 * 6, step);
      const std::vector<int32_t> classes = Classes(40, 3, step);
      const size_t before = asked->arena_bytes();
      for (const auto& program : {&plain, &asked}) {
        ASSERT_TRUE(
            (*program)->ForwardBackward(Rows(*program, x), {.classes = classes}, step, 0).ok());
      }
      std::vector<float>& logits = step == 0 ? first : last;
      ASSERT_TRUE(asked->Evaluate(Rows(asked, many), {.classes = labels}, logits).ok());
      if (step == 0) {
        EXPECT_GE(plain->arena_bytes(), Buffer::kHugeFrom);
        EXPECT_GT(asked->arena_bytes(), before);
      }
      EXPECT_TRUE(SameBits(plain->gradients(), asked->gradients())) << precision << step;
      plain->ApplyGradients(step, 0.025);
      asked->ApplyGradients(step, 0.025);
      EXPECT_TRUE(SameBits(plain->weights(), asked->weights())) << precision << step;
    }
    EXPECT_FALSE(SameBits(first, last));
  }
}

TEST(TrainingProgram, WhatIsNotToTrainMeasuresTheSameAndKeepsNothingForSteps) {
  TrainingProgram::Options options = SmallOptions();
  const Signature signature = Signature::Features(2, 2);
  auto trains = MustBuild(signature, options);
  options.trains = false;
  auto measures = MustBuild(signature, options);
  std::copy(trains->weights().begin(), trains->weights().end(), measures->weights().begin());
  const std::vector<float> x = {-1, -1, -1, 1, 1, -1, 1, 1};
  const std::vector<int32_t> labels = {0, 1, 1, 0};
  const Targets targets{.classes = labels};
  std::vector<float> wanted(8), logits(8);
  const double loss = trains->Evaluate(Rows(trains, x), targets, wanted).value().sum;
  EXPECT_EQ(measures->Evaluate(Rows(measures, x), targets, logits).value().sum, loss);
  EXPECT_EQ(logits, wanted);
  EXPECT_TRUE(measures->gradients().empty());
  EXPECT_TRUE(measures->optimizer_state().empty());
  EXPECT_EQ(measures->ForwardBackward(Rows(measures, x), targets, 0, 0).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::isnan(measures->ApplyGradients(0, 1)));
}

TEST(TrainingProgram, Bf16StaysCloseToF32) {
  TrainingProgram::Options options = SmallOptions();
  options.model.hidden = {64, 32};
  auto wide = MustBuild(Signature::Features(20, 5), options);
  options.precision = "bf16";
  auto narrow = MustBuild(Signature::Features(20, 5), options);
  ASSERT_TRUE(SameBits(wide->weights(), narrow->weights()));
  const std::vector<float> x = Noise(20 * 50, 3);
  const std::vector<int32_t> labels = Classes(50, 5, 4);
  const double a = wide->ForwardBackward(Rows(wide, x), {.classes = labels}, 0, 0).value().sum;
  const double b = narrow->ForwardBackward(Rows(narrow, x), {.classes = labels}, 0, 0).value().sum;
  EXPECT_NE(a, b);  // it does round
  EXPECT_NEAR(a, b, 0.01 * a);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < wide->gradients().size(); ++i) {
    difference += std::pow(double{wide->gradients()[i]} - narrow->gradients()[i], 2);
    norm += std::pow(double{wide->gradients()[i]}, 2);
  }
  EXPECT_LT(std::sqrt(difference), 0.02 * std::sqrt(norm));
}

TEST(TrainingProgram, ParametersLieInOrderWithoutGaps) {
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {5}, .layer_norm = true};
  auto program = MustBuild(Signature::Features(3, 2), options);
  std::vector<std::string> names;
  int64_t next = 0;
  for (const ParameterView& view : program->parameters()) {
    names.push_back(view.name);
    EXPECT_EQ(view.offset, next);
    next += view.size;
  }
  EXPECT_THAT(names,
              testing::ElementsAre("layers.0.weight", "layers.0.bias", "layers.0.norm.weight",
                                   "layers.0.norm.bias", "layers.1.weight", "layers.1.bias"));
  EXPECT_EQ(static_cast<size_t>(next), program->weights().size());
  EXPECT_EQ(program->gradients().size(), program->weights().size());
  EXPECT_EQ(program->optimizer_state().size(), 2 * program->weights().size());
  EXPECT_THAT(program->parameters()[0].shape, testing::ElementsAre(3, 5));
}

TEST(TrainingProgram, FirstWeightsFollowFromSeedAndNameAlone) {
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {50}, .activation = "relu"};
  auto one = MustBuild(Signature::Features(40, 2), options);
  auto same =
      MustBuild(Signature::Features(40, 3), options);  // another head: the first layer stays
  EXPECT_TRUE(SameBits(one->weights().first(2000), same->weights().first(2000)));
  options.seed = 12;
  auto other = MustBuild(Signature::Features(40, 2), options);
  EXPECT_FALSE(SameBits(one->weights().first(2000), other->weights().first(2000)));
  const double bound = std::sqrt(6.0 / 40);
  double sum = 0, squares = 0;
  for (const float w : one->weights().first(2000)) {
    EXPECT_LE(std::abs(w), bound);
    sum += w;
    squares += w * w;
  }
  EXPECT_NEAR(sum / 2000, 0, 0.03);
  EXPECT_NEAR(squares / 2000, bound * bound / 3, 0.003);
  for (const float bias : one->weights().subspan(2000, 50)) EXPECT_EQ(bias, 0);
}

TEST(TrainingProgram, ClippingBoundsTheStep) {
  TrainingProgram::Options options = SmallOptions();
  options.optimizer = {.name = "sgd", .lr = 1, .weight_decay = 0, .momentum = 0};
  options.clip_norm = 0.25;
  auto program = MustBuild(Signature::Features(2, 2), options);
  const std::vector<float> before(program->weights().begin(), program->weights().end());
  std::fill(program->gradients().begin(), program->gradients().end(), 10.0f);
  const auto n = static_cast<double>(before.size());
  EXPECT_NEAR(program->ApplyGradients(0, 0.5), 5 * std::sqrt(n), 1e-6);
  double moved = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    moved += std::pow(double{program->weights()[i]} - before[i], 2);
  }
  EXPECT_NEAR(std::sqrt(moved), 0.25, 1e-6);
}

// Adam's first steps are corrected by their number: anew behind a restart, at the schedule's rate.
TEST(TrainingProgram, ARestartedOptimizerStepsAsAtFirst) {
  TrainingProgram::Options options = SmallOptions();
  options.optimizer = {.name = "adam", .lr = 0.1, .weight_decay = 0};
  options.schedule = {.name = "step", .step_size = 7, .gamma = 0.5};
  auto program = MustBuild(Signature::Features(2, 2), options);
  const auto step = [&](uint64_t number) {
    const float before = program->weights()[0];
    std::fill(program->gradients().begin(), program->gradients().end(), 3.0f);
    program->ApplyGradients(number, 1);
    return before - program->weights()[0];
  };
  EXPECT_NEAR(step(0), 0.1, 1e-5);
  program->gradients()[0] = -100;
  program->ApplyGradients(1, 1);
  EXPECT_GT(std::abs(step(2) - 0.1f), 0.01f);
  program->RestartOptimizer(7);
  for (const float value : program->optimizer_state()) EXPECT_EQ(value, 0);
  EXPECT_NEAR(step(7), 0.05, 1e-5);
  EXPECT_NEAR(step(8), 0.05, 1e-5);
}

TEST(TrainingProgram, BadGradientsAreReportedAndNotApplied) {
  auto program = MustBuild(Signature::Features(2, 2), SmallOptions());
  const std::vector<float> weights(program->weights().begin(), program->weights().end());
  program->gradients()[3] = std::nanf("");
  EXPECT_TRUE(std::isnan(program->ApplyGradients(0, 1)));
  program->gradients()[3] = HUGE_VALF;
  EXPECT_TRUE(std::isinf(program->ApplyGradients(0, 1)));
  EXPECT_TRUE(SameBits(program->weights(), weights));
  const std::vector<float> x = {std::nanf(""), 1};
  const std::vector<int32_t> labels = {1};
  EXPECT_TRUE(std::isnan(
      program->ForwardBackward(Rows(program, x), {.classes = labels}, 0, 0).value().sum));
}

TEST(TrainingProgram, RefusesWhatItCannotBuild) {
  const auto message = [](auto change, Signature signature = Signature::Features(4, 3)) {
    TrainingProgram::Options options = SmallOptions();
    change(options);
    const auto program = TrainingProgram::Build(signature, options);
    return program.ok() ? "" : program.status().ToString();
  };
  using Options = TrainingProgram::Options;
  EXPECT_THAT(message([](Options& o) { o.model.arch = "cnn"; }), HasSubstr("model.arch: 'cnn'"));
  EXPECT_THAT(message([](Options& o) { o.model.hidden = {0}; }), HasSubstr("model.hidden: 0"));
  EXPECT_THAT(message([](Options& o) { o.model.hidden.assign(65, 4); }), HasSubstr("65 layers"));
  EXPECT_THAT(message([](Options& o) { o.model.activation = "swish"; }), HasSubstr("'swish'"));
  EXPECT_THAT(message([](Options& o) { o.model.dropout = 1; }), HasSubstr("model.dropout"));
  EXPECT_THAT(message([](Options& o) { o.loss = "hinge"; }), HasSubstr("loss: 'hinge'"));
  EXPECT_THAT(message([](Options& o) { o.precision = "f16"; }), HasSubstr("precision: 'f16'"));
  EXPECT_THAT(message([](Options& o) { o.optimizer.name = "x"; }), HasSubstr("optimizer.name"));
  EXPECT_THAT(message([](Options& o) { o.schedule.name = "x"; }), HasSubstr("schedule.name"));
  EXPECT_THAT(message([](Options& o) { o.clip_norm = -1; }), HasSubstr("clip_norm"));
  EXPECT_THAT(message([](Options&) {}, Signature::Features(4, 1)), HasSubstr("at least 2 classes"));
  EXPECT_THAT(message([](Options& o) { o.loss = "mse"; }, Signature::Features(0, 1)),
              HasSubstr("feature"));
  EXPECT_THAT(message([](Options& o) {
                o.distill = true;
                o.loss = "mse";
              }),
              HasSubstr("cannot be distilled"));
  EXPECT_THAT(message([](Options& o) {
                o.distill = true;
                o.distill_options.temperature = 0;
              }),
              HasSubstr("distill.temperature"));
  EXPECT_FALSE(InferenceProgram::Build(Signature::Features(4, 3), {.arch = "cnn"}, "f32").ok());
  EXPECT_THAT(InferenceProgram::Build(Signature::Features(4, 3), {}, "int3").status().message(),
              HasSubstr("must be f32, bf16 or int8"));
  EXPECT_THAT(message([](Options& o) { o.precision = "int8"; }), HasSubstr("f32 or bf16"));
}

TEST(TrainingProgram, RefusesBatchesThatDoNotFit) {
  auto program = MustBuild(Signature::Features(4, 3), SmallOptions());
  const std::vector<float> x(8);
  const std::vector<int32_t> good = {0, 2};
  const auto message = [&](std::span<const float> rows, const Targets& targets) {
    return program->ForwardBackward(Rows(program, rows), targets, 0, 0).status().message();
  };
  EXPECT_EQ(message(x, {.classes = good}), "");
  EXPECT_THAT(message({}, {}), HasSubstr("x: is f32[0, 4]; must be f32[batch, 4]"));
  EXPECT_THAT(message(x, {}), HasSubstr("targets.classes: has 0 rows"));
  EXPECT_THAT(message(x, {.classes = std::vector<int32_t>{0, 3}}), HasSubstr("in 0..2"));
  EXPECT_THAT(message(x, {.classes = std::vector<int32_t>{-2, 0}}), HasSubstr("-2"));
  std::vector<float> logits(5);
  EXPECT_THAT(program->Forward(Rows(program, x), logits).message(), HasSubstr("logits"));
}

TEST(TrainingProgram, RowsWithoutATargetCountForNothing) {
  auto program = MustBuild(Signature::Features(4, 3), SmallOptions());
  const std::vector<float> x = Noise(12, 5);
  const auto run = [&](std::span<const float> rows, const std::vector<int32_t>& classes) {
    const LossSum loss =
        program->ForwardBackward(Rows(program, rows), {.classes = classes}, 0, 0).value();
    EXPECT_EQ(loss.count, 2);
    return std::pair{loss.sum,
                     std::vector(program->gradients().begin(), program->gradients().end())};
  };
  const auto [two, two_gradient] = run(std::span(x).first(8), {2, 0});
  const auto [three, three_gradient] = run(x, {2, 0, kNoTarget});
  EXPECT_EQ(two, three);
  EXPECT_TRUE(SameBits(two_gradient, three_gradient));
  std::vector<float> logits(9);
  const auto measured = program->Evaluate(
      Rows(program, x), {.classes = std::vector<int32_t>{2, 0, kNoTarget}}, logits);
  EXPECT_EQ(measured.value().count, 2);
  EXPECT_NEAR(measured.value().sum, two, 1e-5);
}

TEST(TrainingProgram, TakesTheTargetsThatItsLossNeedsWhenBothAreGiven) {
  TrainingProgram::Options options = SmallOptions();
  options.loss = "binary_cross_entropy";
  const std::vector<float> x = Noise(8, 5);
  const std::vector<float> values = {1, 0};
  const std::vector<int32_t> classes = {0, 1};
  const auto gradient = [&](const Targets& targets) {
    auto program = MustBuild(Signature::Features(4, 1), options);
    EXPECT_TRUE(program->ForwardBackward(Rows(program, x), targets, 0, 0).ok());
    return std::vector<float>(program->gradients().begin(), program->gradients().end());
  };
  EXPECT_EQ(gradient({.classes = classes, .values = values}), gradient({.values = values}));
}

}  // namespace
}  // namespace lepton::nn
