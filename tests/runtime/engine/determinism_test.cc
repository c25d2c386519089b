// The same calls give the same bits: for any batch a row is in, from run to run, for any number of
// threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/hash.h"
#include "tests/runtime/engine/programs.h"
#include "tests/runtime/engine/thread_counts.h"

namespace lepton::nn {
namespace {

struct Precision : testing::TestWithParam<std::string> {};

TEST_P(Precision, ARowGivesTheSameBitsInAnyBatch) {
  spec::ModelSpec model{.hidden = {300, 70}, .activation = "gelu", .layer_norm = true};
  TrainingProgram::Options options = SmallOptions();
  options.model = model;
  options.precision = GetParam() == "int8" ? "f32" : GetParam();
  options.inference_precision = GetParam();
  const Signature signature = Signature::Features(33, 7);
  auto training = MustBuild(signature, options);
  auto inference = InferenceProgram::Build(signature, model, GetParam()).value();
  ASSERT_EQ(inference->weights().size(), training->weights().size());
  std::copy(training->weights().begin(), training->weights().end(), inference->weights().begin());
  ASSERT_TRUE(inference->Prepare().ok());

  const std::vector<float> row = Noise(33, 5, 2);
  std::vector<float> alone(7);
  ASSERT_TRUE(inference->Forward(Rows(inference, row), alone).ok());
  for (const int64_t batch : {2, 31, 32, 33, 64, 70, 129}) {
    std::vector<float> x = Noise(33 * batch, 6 + batch, 3);
    std::vector<float> logits(7 * batch);
    for (int64_t place = 0; place<batch; place += batch> 40 ? 7 : 1) {
      std::vector<float> with_row = x;
      std::copy(row.begin(), row.end(), with_row.begin() + 33 * place);
      ASSERT_TRUE(inference->Forward(Rows(inference, with_row), logits).ok());
      EXPECT_TRUE(SameBits(std::span(logits).subspan(7 * place, 7), alone))
          << "row " << place << " of " << batch;
    }
    std::vector<float> by_training(7 * batch);
    ASSERT_TRUE(inference->Forward(Rows(inference, x), logits).ok());
    ASSERT_TRUE(training->Forward(Rows(training, x), by_training).ok());
    EXPECT_TRUE(SameBits(logits, by_training));
  }
}

// What serving relies on: a bad row in a batch does not touch its neighbours.
TEST_P(Precision, ARowOfNanLeavesTheOthersAlone) {
  auto program =
      InferenceProgram::Build(Signature::Features(8, 3), {.hidden = {40}}, GetParam()).value();
  const std::vector<float> weights = Noise(program->weights().size(), 3);
  std::copy(weights.begin(), weights.end(), program->weights().begin());
  ASSERT_TRUE(program->Prepare().ok());
  std::vector<float> x = Noise(8 * 5, 4);
  std::vector<float> clean(15), dirty(15), after(15);
  ASSERT_TRUE(program->Forward(Rows(program, x), clean).ok());
  std::vector<float> bad = x;
  std::fill_n(bad.begin() + 16, 8, std::nanf(""));
  ASSERT_TRUE(program->Forward(Rows(program, bad), dirty).ok());
  EXPECT_TRUE(std::isnan(dirty[6]));
  EXPECT_TRUE(SameBits(std::span(dirty).first(6), std::span(clean).first(6)));
  EXPECT_TRUE(SameBits(std::span(dirty).last(6), std::span(clean).last(6)));
  ASSERT_TRUE(program->Forward(Rows(program, x), after).ok());
  EXPECT_TRUE(SameBits(after, clean));
}

INSTANTIATE_TEST_SUITE_P(All, Precision, testing::Values("f32", "bf16", "int8"),
                         [](const auto& info) { return info.param; });

// A run that has work for several threads in every kernel; its digest covers weights, optimiser
// state, losses and logits.
std::string DigestOfARun(const std::string& precision) {
  TrainingProgram::Options options = SmallOptions();
  options.model = {.hidden = {700, 300}, .activation = "gelu", .dropout = 0.2, .layer_norm = true};
  options.clip_norm = 0.5;
  options.precision = precision;
  auto program = MustBuild(Signature::Features(130, 11), options);
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
          program->ForwardBackward(Rows(program, std::span(x).first(130 * batch)), targets, step, 1)
              .value()
              .sum;
      append(std::vector<double>{loss, program->ApplyGradients(step, 1.0 / batch)});
    }
  }
  append(program->weights());
  append(program->optimizer_state());
  std::vector<float> logits(11 * 290);
  EXPECT_TRUE(program->Forward(Rows(program, x), logits).ok());
  append(logits);
  return Sha256Hex(bytes);
}

TEST(Determinism, TheSameRunGivesTheSameBits) {
  EXPECT_EQ(DigestOfARun("f32"), DigestOfARun("f32"));
  EXPECT_EQ(DigestOfARun("bf16"), DigestOfARun("bf16"));
  EXPECT_NE(DigestOfARun("f32"), DigestOfARun("bf16"));
}

TEST(DeterminismChild, WritesItsDigest) {
  WriteForParent([] { return DigestOfARun("f32") + " " + DigestOfARun("bf16"); });
}

TEST(Determinism, AnyNumberOfThreadsGivesTheSameBits) {
  const auto digests = WithThreads("DeterminismChild.WritesItsDigest", {1, 2, 3, 5});
  ASSERT_EQ(digests[0].size(), 129u);
  EXPECT_THAT(digests, testing::Each(digests[0]));
}

}  // namespace
}  // namespace lepton::nn
