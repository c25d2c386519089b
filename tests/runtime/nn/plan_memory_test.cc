// What whole models train in, against the most that is alive at once in it.
#include <gtest/gtest.h>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

DataShape Pictures(int64_t side) {
  return {.kind = DataShape::Kind::kImages,
          .channels = 3,
          .height = side,
          .width = side,
          .outputs = 10};
}

// Bytes of a step's arena beyond what cannot be less, as a share.
double Waste(const spec::ModelSpec& model, const DataShape& shape, const Batch& batch,
             const Signature& signature, const std::string& precision) {
  TrainingProgram::Options options;
  options.model = ResolveModel(model, shape).value();
  options.precision = precision;
  const auto program = MustBuild(signature, options);
  const int64_t predictions = Predictions(signature, batch);
  const std::vector<int32_t> classes(predictions, 1);
  EXPECT_TRUE(program->ForwardBackward(batch, {.classes = classes}, 0, 0).ok());
  const auto [needed, least] = program->largest_plan();
  EXPECT_GT(least, size_t{100} << 10) << "the plan is of little";
  EXPECT_GE(needed, least);
  return static_cast<double>(needed) / static_cast<double>(least) - 1;
}

class PlanMemory : public testing::TestWithParam<const char*> {};

TEST_P(PlanMemory, OfAGptIsWithinATenthOfTheLeast) {
  for (const char* style : {"gpt2", "llama"}) {
    spec::ModelSpec model = spec::DefaultModel("transformer", style);
    model.transformer.layers = 2;
    model.transformer.heads = 4;
    model.transformer.width = 64;
    const DataShape shape = TextShape(512, 128, 0, true);
    const Signature signature = MakeSignature(model, shape).value();
    const TextBatch batch(signature, std::vector(3, std::vector<int32_t>(128, 5)));
    EXPECT_LT(Waste(model, shape, batch.batch(), signature, GetParam()), 0.1) << style;
  }
}

TEST_P(PlanMemory, OfAResNet18IsWithinATenthOfTheLeast) {
  const spec::ModelSpec model = spec::DefaultModel("resnet18");
  const DataShape shape = Pictures(32);
  const Signature signature = MakeSignature(model, shape).value();
  std::vector<float> pixels = Noise(2 * 3 * 32 * 32, 1);
  const Batch batch{{{pixels.data(), {DType::kF32, {2, 3, 32, 32}}}}};
  EXPECT_LT(Waste(model, shape, batch, signature, GetParam()), 0.1);
}

TEST_P(PlanMemory, OfAVitIsWithinATenthOfTheLeast) {
  spec::ModelSpec model = spec::DefaultModel("vit");
  model.vit.layers = 3;
  model.vit.heads = 4;
  model.vit.width = 64;
  const DataShape shape = Pictures(64);
  const Signature signature = MakeSignature(model, shape).value();
  std::vector<float> pixels = Noise(4 * 3 * 64 * 64, 1);
  const Batch batch{{{pixels.data(), {DType::kF32, {4, 3, 64, 64}}}}};
  EXPECT_LT(Waste(model, shape, batch, signature, GetParam()), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Precisions, PlanMemory, testing::Values("f32", "bf16"));

}  // namespace
}  // namespace lepton::nn
