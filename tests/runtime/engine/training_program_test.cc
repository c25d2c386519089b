// Whole programs: they learn, repeat themselves bit for bit, and refuse what they cannot build.
#include "runtime/nn/training_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/base/hash.h"
#include "runtime/base/thread_pool.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::nn {
namespace {

using testing::HasSubstr;

std::vector<float> Noise(size_t count, uint64_t seed, float scale = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = RandomBlock({seed, 1, 0, 0}, static_cast<uint32_t>(i / 4))[i % 4];
    values[i] = scale * (2 * UniformFromBits(bits) - 1);
  }
  return values;
}

std::vector<int32_t> Classes(size_t count, int classes, uint64_t seed) {
  std::vector<int32_t> labels(count);
  for (size_t i = 0; i < count; ++i) {
    labels[i] = static_cast<int32_t>(RandomBlock({seed, 2, 0, 0}, static_cast<uint32_t>(i))[0] %
                                     static_cast<uint32_t>(classes));
  }
  return labels;
}

std::unique_ptr<TrainingProgram> MustBuild(const Signature& signature,
                                           const TrainingProgram::Options& options) {
  auto program = TrainingProgram::Build(signature, options);
  EXPECT_TRUE(program.ok()) << program.status().ToString();
  return std::move(program).value();
}

template <typename A, typename B>
bool SameBits(const A& a, const B& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0;
}

TrainingProgram::Options SmallOptions() {
  TrainingProgram::Options options;
  options.model.hidden = {16};
  options.model.activation = "tanh";
  options.optimizer = {.name = "adam", .lr = 0.05, .weight_decay = 0};
  options.total_steps = 300;
  options.seed = 11;
  return options;
}

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
  const Signature signature{2, classes ? 2 : 1};
  auto program = MustBuild(signature, options);
  const std::vector<float> x = {-1, -1, -1, 1, 1, -1, 1, 1};
  const std::vector<int32_t> labels = {0, 1, 1, 0};
  const std::vector<float> values = {0, 1, 1, 0};
  const Targets targets = classes ? Targets{.classes = labels} : Targets{.values = values};
  const double first = program->ForwardBackward(4, x, targets, 0, 0).value();
  for (uint64_t step = 0; step < 300; ++step) {
    ASSERT_TRUE(program->ForwardBackward(4, x, targets, step, 0).ok());
    ASSERT_TRUE(std::isfinite(program->ApplyGradients(step, 0.25)));
  }
  std::vector<float> logits(4 * signature.outputs);
  const double last = program->Evaluate(4, x, targets, logits).value();
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
  auto program = MustBuild({2, 2}, options);
  for (uint64_t step = 0; step < 60; ++step) {
    const size_t first = (step % 8) * 50;
    const Targets targets{.classes = std::span(labels).subspan(first, 50)};
    ASSERT_TRUE(
        program->ForwardBackward(50, std::span(x).subspan(2 * first, 100), targets, step, 0).ok());
    program->ApplyGradients(step, 1.0 / 50);
  }
  std::vector<float> logits(2 * kRows);
  ASSERT_TRUE(program->Forward(kRows, x, logits).ok());
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
    auto program = MustBuild({3, 4}, options);
    const std::vector<float> x = Noise(15, 3);
    const std::vector<float> teacher = Noise(20, 4, 3);
    const std::vector<int32_t> labels = Classes(5, 4, 9);
    const Targets targets{.classes = labels, .teacher_logits = teacher};
    ASSERT_TRUE(program->ForwardBackward(5, x, targets, 0, 0).ok());
    const std::vector<float> gradients(program->gradients().begin(), program->gradients().end());
    for (size_t i = 0; i < gradients.size(); ++i) {
      float& w = program->weights()[i];
      const float before = w;
      w = before + kStep;
      const double up = program->ForwardBackward(5, x, targets, 0, 0).value();
      w = before - kStep;
      const double down = program->ForwardBackward(5, x, targets, 0, 0).value();
      w = before;
      ASSERT_NEAR(gradients[i], (up - down) / (2 * kStep), 5e-3) << i;
    }
  }
}

TEST(TrainingProgram, GradientIsTheSumOverRows) {
  auto program = MustBuild({6, 3}, SmallOptions());
  const std::vector<float> x = Noise(6 * 10, 3);
  const std::vector<int32_t> labels = Classes(10, 3, 4);
  double sum = 0;
  std::vector<double> total(program->gradients().size());
  for (int row = 0; row < 10; ++row) {
    sum += program
               ->ForwardBackward(1, std::span(x).subspan(6 * row, 6),
                                 {.classes = std::span(labels).subspan(row, 1)}, 0, 0)
               .value();
    for (size_t i = 0; i < total.size(); ++i) total[i] += program->gradients()[i];
  }
  EXPECT_NEAR(program->ForwardBackward(10, x, {.classes = labels}, 0, 0).value(), sum, 1e-4);
  for (size_t i = 0; i < total.size(); ++i) {
    EXPECT_NEAR(program->gradients()[i], total[i], 1e-4);
  }
}

TEST(TrainingProgram, DistillationLossEqualsTheFormula) {
  TrainingProgram::Options options = SmallOptions();
  options.distill = true;
  options.distill_options = {.temperature = 3, .alpha = 0.3};
  auto program = MustBuild({4, 3}, options);
  const std::vector<float> x = Noise(8, 1);
  const std::vector<float> teacher = {1, 2, -1, 0.5f, 0, 3};
  const std::vector<int32_t> labels = {2, 0};
  std::vector<float> logits(6);
  ASSERT_TRUE(program->Forward(2, x, logits).ok());
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
  EXPECT_NEAR(program->ForwardBackward(2, x, targets, 0, 0).value(), wanted, 1e-5);
  // Evaluate is the label loss alone.
  double label_loss = program->Evaluate(2, x, targets, logits).value();
  options.distill = false;
  EXPECT_NEAR(MustBuild({4, 3}, options)->ForwardBackward(2, x, targets, 0, 0).value(), label_loss,
              1e-5);
}

TEST(TrainingProgram, Bf16StaysCloseToF32) {
  TrainingProgram::Options options = SmallOptions();
  options.model.hidden = {64, 32};
  auto wide = MustBuild({20, 5}, options);
  options.precision = "bf16";
  auto narrow = MustBuild({20, 5}, options);
  ASSERT_TRUE(SameBits(wide->weights(), narrow->weights()));
  const std::vector<float> x = Noise(20 * 50, 3);
  const std::vector<int32_t> labels = Classes(50, 5, 4);
  const double a = wide->ForwardBackward(50, x, {.classes = labels}, 0, 0).value();
  const double b = narrow->ForwardBackward(50, x, {.classes = labels}, 0, 0).value();
  EXPECT_NE(a, b);  // it does round
  EXPECT_NEAR(a, b, 0.01 * a);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < wide->gradients().size(); ++i) {
    difference += std::pow(double{wide->gradients()[i]} - narrow->gradients()[i], 2);
    norm += std::pow(double{wide->gradients()[i]}, 2);
  }
  EXPECT_LT(std::sqrt(difference), 0.02 * std::sqrt(norm));
}

struct Precision : testing::TestWithParam<std::string> {};

TEST_P(Precision, ARowGivesTheSameBitsInAnyBatch) {
  spec::ModelSpec model{.hidden = {300, 70}, .activation = "gelu", .layer_norm = true};
  TrainingProgram::Options options = SmallOptions();
  options.model = model;
  options.precision = GetParam();
  const Signature signature{33, 7};
  auto training = MustBuild(signature, options);
  auto inference = InferenceProgram::Build(signature, model, GetParam()).value();
  ASSERT_EQ(inference->weights().size(), training->weights().size());
  std::copy(training->weights().begin(), training->weights().end(), inference->weights().begin());
  ASSERT_TRUE(inference->Prepare().ok());

  const std::vector<float> row = Noise(33, 5, 2);
  std::vector<float> alone(7);
  ASSERT_TRUE(inference->Forward(1, row, alone).ok());
  for (const int64_t batch : {2, 31, 32, 33, 64, 70, 129}) {
    std::vector<float> x = Noise(33 * batch, 6 + batch, 3);
    std::vector<float> logits(7 * batch);
    for (int64_t place = 0; place<batch; place += batch> 40 ? 7 : 1) {
      std::vector<float> with_row = x;
      std::copy(row.begin(), row.end(), with_row.begin() + 33 * place);
      ASSERT_TRUE(inference->Forward(batch, with_row, logits).ok());
      EXPECT_TRUE(SameBits(std::span(logits).subspan(7 * place, 7), alone))
          << "row " << place << " of " << batch;
    }
    std::vector<float> by_training(7 * batch);
    ASSERT_TRUE(inference->Forward(batch, x, logits).ok());
    ASSERT_TRUE(training->Forward(batch, x, by_training).ok());
    EXPECT_TRUE(SameBits(logits, by_training));
  }
}

// What serving relies on: a bad row in a batch does not touch its neighbours.
TEST_P(Precision, ARowOfNanLeavesTheOthersAlone) {
  auto program = InferenceProgram::Build({8, 3}, {.hidden = {40}}, GetParam()).value();
  const std::vector<float> weights = Noise(program->weights().size(), 3);
  std::copy(weights.begin(), weights.end(), program->weights().begin());
  ASSERT_TRUE(program->Prepare().ok());
  std::vector<float> x = Noise(8 * 5, 4);
  std::vector<float> clean(15), dirty(15), after(15);
  ASSERT_TRUE(program->Forward(5, x, clean).ok());
  std::vector<float> bad = x;
  std::fill_n(bad.begin() + 16, 8, std::nanf(""));
  ASSERT_TRUE(program->Forward(5, bad, dirty).ok());
  EXPECT_TRUE(std::isnan(dirty[6]));
  EXPECT_TRUE(SameBits(std::span(dirty).first(6), std::span(clean).first(6)));
  EXPECT_TRUE(SameBits(std::span(dirty).last(6), std::span(clean).last(6)));
  ASSERT_TRUE(program->Forward(5, x, after).ok());
  EXPECT_TRUE(SameBits(after, clean));
}

INSTANTIATE_TEST_SUITE_P(Both, Precision, testing::Values("f32", "bf16"),
                         [](const auto& info) { return info.param; });

// A run that has work for several threads in every kernel; its digest covers weights, optimiser
// state, losses and logits.
std::string DigestOfARun(const std::string& precision) {
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {700, 300}, .activation = "gelu", .dropout = 0.2, .layer_norm = true};
  options.clip_norm = 0.5;
  options.precision = precision;
  auto program = MustBuild({130, 11}, options);
  const std::vector<float> x = Noise(130 * 290, 3);
  const std::vector<int32_t> labels = Classes(290, 11, 4);
  std::string bytes;
  const auto append = [&](const auto& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()),
                 values.size() * sizeof(*values.data()));
  };
  for (uint64_t step = 0; step < 3; ++step) {
    // Sizes alternate, so that plans are made, kept and reused.
    for (const int64_t batch : {290, 17}) {
      const Targets targets{.classes = std::span(labels).first(batch)};
      const double loss =
          program->ForwardBackward(batch, std::span(x).first(130 * batch), targets, step, 1)
              .value();
      append(std::vector<double>{loss, program->ApplyGradients(step, 1.0 / batch)});
    }
  }
  append(program->weights());
  append(program->optimizer_state());
  std::vector<float> logits(11 * 290);
  EXPECT_TRUE(program->Forward(290, x, logits).ok());
  append(logits);
  return Sha256Hex(bytes);
}

TEST(Determinism, TheSameRunGivesTheSameBits) {
  EXPECT_EQ(DigestOfARun("f32"), DigestOfARun("f32"));
  EXPECT_EQ(DigestOfARun("bf16"), DigestOfARun("bf16"));
  EXPECT_NE(DigestOfARun("f32"), DigestOfARun("bf16"));
}

// The compute pool has one size per process, so other sizes run in children: this same program,
// with the child test selected.
constexpr char kThreads[] = "LEPTON_TEST_COMPUTE_THREADS";
constexpr char kDigestFile[] = "LEPTON_TEST_DIGEST_FILE";

TEST(DeterminismChild, WritesItsDigest) {
  const char* threads = std::getenv(kThreads);
  if (threads == nullptr) GTEST_SKIP() << "runs as a child of the next test";
  ThreadPool::SetComputeThreads(std::atoi(threads));
  std::ofstream(std::getenv(kDigestFile)) << DigestOfARun("f32") << " " << DigestOfARun("bf16");
}

TEST(Determinism, AnyNumberOfThreadsGivesTheSameBits) {
  const std::string file = testing::TempDir() + "/digest." + std::to_string(::getpid());
  std::vector<std::string> digests;
  for (const char* threads : {"1", "2", "3", "5"}) {
    ::setenv(kThreads, threads, 1);
    ::setenv(kDigestFile, file.c_str(), 1);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    const std::string command = self + " --gtest_filter=DeterminismChild.* >/dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0);
    std::stringstream text;
    text << std::ifstream(file).rdbuf();
    digests.push_back(text.str());
    std::filesystem::remove(file);
  }
  ::unsetenv(kThreads);
  ASSERT_EQ(digests[0].size(), 129u);
  EXPECT_THAT(digests, testing::Each(digests[0]));
}

TEST(TrainingProgram, ParametersLieInOrderWithoutGaps) {
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {5}, .layer_norm = true};
  auto program = MustBuild({3, 2}, options);
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
  auto one = MustBuild({40, 2}, options);
  auto same = MustBuild({40, 3}, options);  // another head: the first layer stays
  EXPECT_TRUE(SameBits(one->weights().first(2000), same->weights().first(2000)));
  options.seed = 12;
  auto other = MustBuild({40, 2}, options);
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
  auto program = MustBuild({2, 2}, options);
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

TEST(TrainingProgram, BadGradientsAreReportedAndNotApplied) {
  auto program = MustBuild({2, 2}, SmallOptions());
  const std::vector<float> weights(program->weights().begin(), program->weights().end());
  program->gradients()[3] = std::nanf("");
  EXPECT_TRUE(std::isnan(program->ApplyGradients(0, 1)));
  program->gradients()[3] = HUGE_VALF;
  EXPECT_TRUE(std::isinf(program->ApplyGradients(0, 1)));
  EXPECT_TRUE(SameBits(program->weights(), weights));
  const std::vector<float> x = {std::nanf(""), 1};
  const std::vector<int32_t> labels = {1};
  EXPECT_TRUE(std::isnan(program->ForwardBackward(1, x, {.classes = labels}, 0, 0).value()));
}

TEST(TrainingProgram, RefusesWhatItCannotBuild) {
  const auto message = [](auto change, Signature signature = {4, 3}) {
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
  EXPECT_THAT(message([](Options&) {}, {4, 1}), HasSubstr("at least 2 classes"));
  EXPECT_THAT(message([](Options& o) { o.loss = "mse"; }, {0, 1}), HasSubstr("feature"));
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
  EXPECT_FALSE(InferenceProgram::Build({4, 3}, {.arch = "cnn"}, "f32").ok());
  EXPECT_FALSE(InferenceProgram::Build({4, 3}, {}, "int3").ok());
}

TEST(TrainingProgram, RefusesBatchesThatDoNotFit) {
  auto program = MustBuild({4, 3}, SmallOptions());
  const std::vector<float> x(8);
  const std::vector<int32_t> good = {0, 2};
  const auto message = [&](int64_t batch, std::span<const float> rows, const Targets& targets) {
    return program->ForwardBackward(batch, rows, targets, 0, 0).status().message();
  };
  EXPECT_EQ(message(2, x, {.classes = good}), "");
  EXPECT_THAT(message(0, {}, {}), HasSubstr("batch: must be at least 1"));
  EXPECT_THAT(message(3, x, {.classes = good}), HasSubstr("must have 3 rows of 4"));
  EXPECT_THAT(message(2, x, {}), HasSubstr("targets.classes: has 0 rows"));
  EXPECT_THAT(message(2, x, {.classes = std::vector<int32_t>{0, 3}}), HasSubstr("in 0..2"));
  EXPECT_THAT(message(2, x, {.classes = std::vector<int32_t>{-1, 0}}), HasSubstr("-1"));
  std::vector<float> logits(5);
  EXPECT_THAT(program->Forward(2, x, logits).message(), HasSubstr("logits"));
}

}  // namespace
}  // namespace lepton::nn
