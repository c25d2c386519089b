// Residual networks and vision transformers: they learn digits, their statistics follow the data,
// and whole models agree with finite differences.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "runtime/base/file.h"
#include "runtime/nn/model_list.h"
#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/gradient_check.h"

namespace lepton::nn {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSide = 8;

// The first rows of the digits that the repository ships: 8 x 8 pixels and a class.
struct Digits {
  explicit Digits(int64_t rows) {
    std::istringstream csv(ReadFile(LEPTON_SOURCE_DIR "/scripts/data/digits.csv").value());
    std::string line, cell;
    std::getline(csv, line);
    for (int64_t row = 0; row < rows && std::getline(csv, line); ++row) {
      std::istringstream cells(line);
      for (int64_t i = 0; i < kSide * kSide; ++i) {
        std::getline(cells, cell, ',');
        pixels.push_back(std::stof(cell) / 8 - 1);
      }
      std::getline(cells, cell, ',');
      classes.push_back(std::stoi(cell));
    }
  }
  Batch batch(int64_t first, int64_t rows) {
    return {{{pixels.data() + first * kSide * kSide, {DType::kF32, {rows, 1, kSide, kSide}}}}};
  }
  Targets targets(int64_t first, int64_t rows) const {
    return {.classes = std::span(classes).subspan(first, rows)};
  }
  std::vector<float> pixels;
  std::vector<int32_t> classes;
};

DataShape DigitShape() {
  return {.kind = DataShape::Kind::kImages,
          .channels = 1,
          .height = kSide,
          .width = kSide,
          .outputs = 10};
}

spec::ModelSpec SmallResnet(const std::string& arch) {
  spec::ModelSpec model = spec::DefaultModel(arch);
  model.resnet.stem_width = 8;
  model.resnet.widths = {8, 16};
  if (model.resnet.block == "bottleneck") model.resnet.widths = {32, 64};
  model.resnet.depths = {1, 1};
  return model;
}

spec::ModelSpec SmallVit() {
  spec::ModelSpec model = spec::DefaultModel("vit");
  model.vit.layers = 2;
  model.vit.heads = 2;
  model.vit.width = 32;
  return model;
}

std::unique_ptr<TrainingProgram> Build(const spec::ModelSpec& model, double lr = 3e-3) {
  TrainingProgram::Options options;
  options.model = ResolveModel(model, DigitShape()).value();
  options.optimizer = {.name = "adamw", .lr = lr, .weight_decay = 0.01};
  options.seed = 1;
  return MustBuild(MakeSignature(model, DigitShape()).value(), options);
}

class ImageModel : public testing::TestWithParam<const char*> {
 public:
  static spec::ModelSpec Model() {
    return std::string(GetParam()) == "vit" ? SmallVit() : SmallResnet(GetParam());
  }
};

TEST_P(ImageModel, IsTheSameWhereActivationsAreComputedAgain) {
  Digits digits(24);
  TrainingProgram::Options options;
  options.model = ResolveModel(Model(), DigitShape()).value();
  const Signature signature = MakeSignature(Model(), DigitShape()).value();
  for (const char* precision : {"f32", "bf16"}) {
    options.precision = precision;
    options.recompute_activations = false;
    const auto kept = MustBuild(signature, options);
    options.recompute_activations = true;
    const auto repeated = MustBuild(signature, options);
    const auto run = [&](TrainingProgram& program) {
      return program.ForwardBackward(digits.batch(0, 24), digits.targets(0, 24), 0, 0).value().sum;
    };
    EXPECT_EQ(run(*repeated), run(*kept));
    EXPECT_TRUE(SameBits(repeated->gradients(), kept->gradients())) << precision;
  }
}

// Trained parameters' gradients in passing; statistics stay.
TEST_P(ImageModel, IsTheSameWhereGradientsAreSeenInPassingOnly) {
  Digits digits(24);
  TrainingProgram::Options options;
  options.model = ResolveModel(Model(), DigitShape()).value();
  const Signature signature = MakeSignature(Model(), DigitShape()).value();
  const auto kept = MustBuild(signature, options);
  options.keeps_gradients = false;
  const auto passing = MustBuild(signature, options);
  std::vector<float> seen(kept->gradients().size());
  passing->WatchGradients([&](size_t i) {
    const std::span<const float> gradient = passing->gradient(i);
    std::copy(gradient.begin(), gradient.end(), seen.begin() + passing->parameters()[i].offset);
  });
  for (TrainingProgram* program : {kept.get(), passing.get()}) {
    ASSERT_TRUE(program->ForwardBackward(digits.batch(0, 24), digits.targets(0, 24), 0, 0).ok());
  }
  const std::span<const float> statistics = passing->gradients();
  std::copy(statistics.begin(), statistics.end(),
            seen.end() - static_cast<ptrdiff_t>(statistics.size()));
  EXPECT_TRUE(SameBits(seen, kept->gradients()));
}

constexpr int64_t kTrain = 320, kTest = 80;

int CorrectOf(const Digits& digits, std::span<const float> logits) {
  int correct = 0;
  for (int64_t row = 0; row < kTest; ++row) {
    const auto begin = logits.begin() + row * 10;
    correct += std::max_element(begin, begin + 10) - begin == digits.classes[kTrain + row];
  }
  return correct;
}

// The trained weights in 8 bits: about as good, and an image has the same bits alone, in a batch
// and beside one of NaN.
void ExpectServesIn8Bits(const spec::ModelSpec& model, TrainingProgram& trained, Digits& digits,
                         std::span<const float> logits) {
  const auto program = InferenceProgram::Build(MakeSignature(model, DigitShape()).value(),
                                               ResolveModel(model, DigitShape()).value(), "int8")
                           .value();
  const std::span<const float> weights = trained.weights();
  std::copy(weights.begin(), weights.end(), program->weights().begin());
  ASSERT_TRUE(program->Prepare().ok());
  std::vector<float> served(kTest * 10), alone(10);
  ASSERT_TRUE(program->Forward(digits.batch(kTrain, kTest), served).ok());
  EXPECT_FALSE(SameBits(served, logits));
  EXPECT_NEAR(CorrectOf(digits, served), CorrectOf(digits, logits), 3);
  ASSERT_TRUE(program->Forward(digits.batch(kTrain + 7, 1), alone).ok());
  EXPECT_TRUE(SameBits(std::span(served).subspan(70, 10), alone));
  digits.pixels[(kTrain + 6) * kSide * kSide] = std::nanf("");
  std::vector<float> beside(kTest * 10);
  ASSERT_TRUE(program->Forward(digits.batch(kTrain, kTest), beside).ok());
  EXPECT_TRUE(std::isnan(beside[60]));
  EXPECT_TRUE(SameBits(std::span(beside).first(60), std::span(served).first(60)));
  EXPECT_TRUE(SameBits(std::span(beside).subspan(70), std::span(served).subspan(70)));
}

TEST_P(ImageModel, LearnsDigitsAndServesThemIn8Bits) {
  Digits digits(kTrain + kTest);
  constexpr int64_t kRows = 40;
  const auto program = Build(Model());
  for (int step = 0; step < 400; ++step) {
    const int64_t first = step * kRows % kTrain;
    const LossSum loss =
        program->ForwardBackward(digits.batch(first, kRows), digits.targets(first, kRows), step, 0)
            .value();
    program->ApplyGradients(step, 1 / loss.count);
  }
  std::vector<float> logits(kTest * 10);
  ASSERT_TRUE(program->Forward(digits.batch(kTrain, kTest), logits).ok());
  EXPECT_GT(CorrectOf(digits, logits), 44);  // of 80 digits that it has not seen; by chance 8
  ExpectServesIn8Bits(Model(), *program, digits, logits);
}

TEST_P(ImageModel, GradientEqualsFiniteDifferences) {
  Digits digits(8);
  spec::ModelSpec model = Model();
  model.activation = "gelu";  // without a kink
  const auto program = Build(model);
  CheckTrainingGradients(*program, digits.batch(0, 8), digits.targets(0, 8));
}

TEST_P(ImageModel, GivesTheSameBitsAgain) {
  Digits digits(60);
  std::vector<float> weights[2];
  for (auto& result : weights) {
    const auto program = Build(Model());
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE(
          program
              ->ForwardBackward(digits.batch(step * 20, 20), digits.targets(step * 20, 20), step, 0)
              .ok());
      program->ApplyGradients(step, 1.0 / 20);
    }
    result.assign(program->weights().begin(), program->weights().end());
  }
  EXPECT_TRUE(SameBits(weights[0], weights[1]));
}

INSTANTIATE_TEST_SUITE_P(Models, ImageModel, testing::Values("resnet18", "resnet50", "vit"));

const ParameterView& Find(const TrainingProgram& program, const std::string& name) {
  for (const ParameterView& view : program.parameters()) {
    if (view.name == name) return view;
  }
  ADD_FAILURE() << "no parameter " << name;
  return program.parameters().front();
}

TEST(Resnet, RunningStatisticsFollowTheMeanOfTheShards) {
  Digits digits(30);
  spec::ModelSpec model = SmallResnet("resnet18");
  model.resnet.statistics_momentum = 0.25;
  const auto program = Build(model);
  const auto& view = Find(*program, "resnet.embedder.embedder.normalization.running_mean");
  EXPECT_TRUE(view.statistic);
  const auto gradient = [&](int64_t first, int64_t rows) {
    EXPECT_TRUE(
        program->ForwardBackward(digits.batch(first, rows), digits.targets(first, rows), 0, 0)
            .ok());
    return std::vector<float>(program->gradients().begin(), program->gradients().end());
  };
  const std::vector<float> one = gradient(0, 10), two = gradient(10, 20);
  for (size_t i = 0; i < one.size(); ++i) program->gradients()[i] = one[i] + two[i];
  const std::vector<float> before(program->weights().begin(), program->weights().end());
  program->ApplyGradients(0, 1.0 / 30);
  bool moved = false;
  for (int64_t i = view.offset; i < view.offset + view.size; ++i) {
    EXPECT_EQ(before[i], 0);
    EXPECT_NEAR(program->weights()[i], 0.25 * (one[i] + two[i]) / 30, 1e-6);
    moved |= program->weights()[i] != 0;
  }
  EXPECT_TRUE(moved);
}

TEST(Resnet, StatisticsLieBehindAndAreNotTrained) {
  const auto program = Build(SmallResnet("resnet18"));
  int64_t trained = 0, statistics = 0;
  for (const ParameterView& view : program->parameters()) {
    (view.statistic ? statistics : trained) += view.size;
  }
  EXPECT_GT(statistics, 0);
  EXPECT_EQ(program->weights().size(), static_cast<size_t>(trained + statistics));
  EXPECT_EQ(program->optimizer_state().size(), static_cast<size_t>(2 * trained));
  for (const ParameterView& view : program->parameters()) {
    EXPECT_EQ(view.offset >= trained, view.statistic) << view.name;
  }
  std::fill(program->gradients().begin(), program->gradients().end(), 0.0f);
  std::fill(program->gradients().begin() + trained, program->gradients().end(), 1e6f);
  EXPECT_EQ(program->ApplyGradients(0, 1), 0);  // no part of the norm
}

TEST(Resnet, EvaluationUsesTheRunningStatistics) {
  Digits digits(20);
  const auto program = Build(SmallResnet("resnet18"));
  std::vector<float> alone(10), among(200);
  ASSERT_TRUE(program->Forward(digits.batch(0, 1), alone).ok());
  ASSERT_TRUE(program->Forward(digits.batch(0, 20), among).ok());
  EXPECT_TRUE(SameBits(alone, std::span(among).first(10)));
  for (float& w : program->weights().subspan(
           Find(*program, "resnet.embedder.embedder.normalization.running_mean").offset, 8)) {
    w += 0.5f;
  }
  std::vector<float> moved(10);
  ASSERT_TRUE(program->Forward(digits.batch(0, 1), moved).ok());
  EXPECT_FALSE(SameBits(alone, moved));
}

// Of the public models with 1000 classes.
TEST(Resnet, StandardSizesHaveTheKnownNumberOfParameters) {
  const DataShape photos{.kind = DataShape::Kind::kImages,
                         .channels = 3,
                         .height = 224,
                         .width = 224,
                         .outputs = 1000};
  const auto trained = [&](const char* arch) {
    const spec::ModelSpec model = ResolveModel(spec::DefaultModel(arch), photos).value();
    const auto signature = MakeSignature(model, photos).value();
    const auto program = InferenceProgram::Build(signature, model, "f32").value();
    int64_t count = 0;
    for (const ParameterView& view : program->parameters()) count += view.statistic ? 0 : view.size;
    return count;
  };
  EXPECT_EQ(trained("resnet18"), 11689512);
  EXPECT_EQ(trained("resnet34"), 21797672);
  EXPECT_EQ(trained("resnet50"), 25557032);
  spec::ModelSpec vit = spec::DefaultModel("vit");
  vit.vit.layers = vit.vit.heads = 12;
  vit.vit.width = 768;
  const spec::ModelSpec base = ResolveModel(vit, photos).value();
  EXPECT_EQ(base.vit.patch, 16);
  const auto program =
      InferenceProgram::Build(MakeSignature(base, photos).value(), base, "f32").value();
  int64_t count = 0;
  for (const ParameterView& view : program->parameters()) count += view.size;
  EXPECT_EQ(count, 86567656);  // ViT-B/16
}

TEST(ImageModelRefusal, NamesTheFieldAndTheFix) {
  const auto message = [](spec::ModelSpec model, auto change, DataShape data = DigitShape()) {
    change(model);
    return std::string(ResolveModel(model, data).status().message());
  };
  const spec::ModelSpec resnet = SmallResnet("resnet50"), vit = SmallVit();
  EXPECT_THAT(message(resnet, [](auto& m) { m.resnet.widths = {8}; }),
              HasSubstr("model.widths: has 1 stages, depths has 2"));
  EXPECT_THAT(message(resnet,
                      [](auto& m) {
                        m.resnet.widths = {8, 18};
                      }),
              HasSubstr("model.widths: 18 must be a multiple of 4"));
  EXPECT_THAT(message(resnet, [](auto& m) { m.resnet.stem = "big"; }),
              HasSubstr("model.stem: 'big' is unknown"));
  EXPECT_THAT(message(resnet, [](auto& m) { m.image.channels = 3; }),
              HasSubstr("model.image.channels: 3 is not the data's 1"));
  EXPECT_THAT(message(vit, [](auto& m) { m.vit.patch = 3; }),
              HasSubstr("model.patch: 3 must divide the images' height, 8"));
  EXPECT_THAT(message(vit, [](auto& m) { m.vit.heads = 5; }),
              HasSubstr("model.width: 32 must be a multiple of heads, 5"));
  EXPECT_THAT(message(vit, [](auto&) {}, {.features = 3, .outputs = 2}),
              HasSubstr("vit takes images, but the data has rows of features"));
}

}  // namespace
}  // namespace lepton::nn
