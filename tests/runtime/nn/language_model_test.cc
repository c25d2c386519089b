// Language models learn, repeat themselves bit by bit, and look where they may.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr char kSentence[] = "the quick brown fox jumps over the lazy dog";

TrainingProgram::Options OptionsFor(const spec::ModelSpec& model, int64_t steps) {
  TrainingProgram::Options options;
  options.model = model;
  options.optimizer = {.name = "adamw", .lr = 3e-3, .weight_decay = 0.01, .decay = "matrices"};
  options.total_steps = steps;
  options.clip_norm = 1;
  options.seed = 3;
  return options;
}

// The mean loss of each step.
std::vector<double> Learn(TrainingProgram& program, const TextBatch& batch, const Targets& targets,
                          int steps) {
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    const auto loss = program.ForwardBackward(batch.batch(), targets, step, 0);
    EXPECT_TRUE(loss.ok()) << loss.status().ToString();
    if (!loss.ok()) break;
    losses.push_back(loss->sum / loss->count);
    program.ApplyGradients(step, 1 / loss->count);
  }
  return losses;
}

class Decoder : public testing::TestWithParam<const char*> {};

TEST_P(Decoder, MemorisesASentence) {
  const std::vector<int32_t> text = BytesOf(kSentence);
  const auto [model, signature] = Resolve(TinyTransformer(GetParam()), TextShape(128, 64, 0, true));
  ASSERT_EQ(signature.inputs.size(), 1u);
  ASSERT_EQ(signature.outputs, 128);
  const auto program = MustBuild(signature, OptionsFor(model, 150));
  const TextBatch batch(signature, {text});
  const std::vector<int32_t> targets = batch.next_tokens();
  const std::vector<double> losses = Learn(*program, batch, {.classes = targets}, 150);
  EXPECT_NEAR(losses.front(), std::log(128), 0.3);
  EXPECT_LT(losses.back(), 0.1);
  // It says the sentence by heart, from its own answers.
  std::vector<int32_t> said(text.begin(), text.begin() + 6);
  while (said.size() < text.size()) {
    const TextBatch prefix(signature, {said});
    std::vector<float> logits(said.size() * 128);
    ASSERT_TRUE(program->Forward(prefix.batch(), logits).ok());
    const auto last = logits.end() - 128;
    said.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
  }
  EXPECT_EQ(std::string(said.begin(), said.end()), kSentence);
}

TEST_P(Decoder, DoesNotSeeTheFuture) {
  const auto [model, signature] = Resolve(TinyTransformer(GetParam()), TextShape(128, 64, 0, true));
  const auto program = MustBuild(signature, OptionsFor(model, 1));
  const TextBatch one(signature, {BytesOf("abcdefgh")});
  const TextBatch other(signature, {BytesOf("abcdeXYZ")});
  std::vector<float> a(8 * 128), b(8 * 128);
  ASSERT_TRUE(program->Forward(one.batch(), a).ok());
  ASSERT_TRUE(program->Forward(other.batch(), b).ok());
  EXPECT_TRUE(SameBits(std::span(a).first(5 * 128), std::span(b).first(5 * 128)));
  EXPECT_FALSE(SameBits(std::span(a).last(128), std::span(b).last(128)));
}

TEST_P(Decoder, GivesTheSameCurveAgain) {
  spec::ModelSpec tiny = TinyTransformer(GetParam());
  tiny.dropout = 0.1;
  const auto [model, signature] = Resolve(tiny, TextShape(128, 64, 0, true));
  const TextBatch batch(signature, {BytesOf(kSentence), BytesOf("and runs away")});
  const std::vector<int32_t> targets = batch.next_tokens();
  std::vector<double> curves[2];
  std::vector<float> weights[2];
  for (int run = 0; run < 2; ++run) {
    const auto program = MustBuild(signature, OptionsFor(model, 12));
    curves[run] = Learn(*program, batch, {.classes = targets}, 12);
    weights[run].assign(program->weights().begin(), program->weights().end());
  }
  EXPECT_TRUE(SameBits(curves[0], curves[1]));
  EXPECT_TRUE(SameBits(weights[0], weights[1]));
}

INSTANTIATE_TEST_SUITE_P(Styles, Decoder, testing::Values("gpt2", "llama", "mistral", "qwen3"));

class Encoder : public testing::TestWithParam<const char*> {};

TEST_P(Encoder, LearnsToTellTextsApart) {
  const auto [model, signature] =
      Resolve(TinyTransformer(GetParam()), TextShape(128, 16, 2, false));
  const auto program = MustBuild(signature, OptionsFor(model, 60));
  const TextBatch batch(signature, {BytesOf("good day"), BytesOf("a bad time"), BytesOf("so good"),
                                    BytesOf("too bad"), BytesOf("a good time"), BytesOf("bad")});
  const std::vector<int32_t> labels = {1, 0, 1, 0, 1, 0};
  const std::vector<double> losses = Learn(*program, batch, {.classes = labels}, 60);
  EXPECT_NEAR(losses.front(), std::log(2), 0.2);
  EXPECT_LT(losses.back(), 0.05);
}

TEST_P(Encoder, DoesNotSeePadding) {
  const auto [model, signature] =
      Resolve(TinyTransformer(GetParam()), TextShape(128, 64, 3, false));
  const auto program = MustBuild(signature, OptionsFor(model, 1));
  const TextBatch tight(signature, {BytesOf("abcdefgh")});
  const TextBatch padded(signature, {BytesOf("abcdefgh")}, 20);
  std::vector<float> a(3), b(3);
  ASSERT_TRUE(program->Forward(tight.batch(), a).ok());
  ASSERT_TRUE(program->Forward(padded.batch(), b).ok());
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Styles, Encoder,
                         testing::Values("gpt2", "llama", "qwen2", "bert", "distilbert"));

TEST(LanguageModel, ATextGivesTheSameBitsAmongOthersOfItsLength) {
  for (const char* style : {"bert", "llama"}) {
    const auto [model, signature] = Resolve(TinyTransformer(style), TextShape(128, 64, 3, false));
    const auto program = MustBuild(signature, OptionsFor(model, 1));
    for (const size_t length : {5, 30, 64}) {
      std::vector<std::vector<int32_t>> texts;
      for (int32_t i = 0; i < 21; ++i) texts.push_back(std::vector<int32_t>(5, i));
      std::vector<float> among(21 * 3), alone(3);
      ASSERT_TRUE(program->Forward(TextBatch(signature, texts, length).batch(), among).ok());
      for (size_t i = 0; i < texts.size(); ++i) {
        ASSERT_TRUE(program->Forward(TextBatch(signature, {texts[i]}, length).batch(), alone).ok());
        EXPECT_TRUE(SameBits(alone, std::span(among).subspan(3 * i, 3))) << style << " " << i;
      }
    }
  }
}

TEST(LanguageModel, AWindowHidesWhatIsFarther) {
  spec::ModelSpec tiny = TinyTransformer("mistral");
  tiny.transformer.layers = 1;
  tiny.transformer.window = 3;
  const auto [model, signature] = Resolve(tiny, TextShape(128, 64, 0, true));
  const auto program = MustBuild(signature, OptionsFor(model, 1));
  const TextBatch one(signature, {BytesOf("abcdefgh")});
  const TextBatch other(signature, {BytesOf("Xbcdefgh")});
  std::vector<float> a(8 * 128), b(8 * 128);
  ASSERT_TRUE(program->Forward(one.batch(), a).ok());
  ASSERT_TRUE(program->Forward(other.batch(), b).ok());
  for (size_t token = 0; token < 8; ++token) {
    const bool same =
        SameBits(std::span(a).subspan(token * 128, 128), std::span(b).subspan(token * 128, 128));
    EXPECT_EQ(same, token >= 3) << token;
  }
}

TEST(LanguageModel, HeadsOfWholeTextsMayBeMissing) {
  spec::ModelSpec bare = TinyTransformer("bert");
  bare.head = "none";
  const auto [model, signature] = Resolve(bare, TextShape(128, 64, 32, true));
  const auto program = MustBuild(signature, OptionsFor(model, 1));
  const TextBatch text(signature, {BytesOf("abc")});
  std::vector<float> states(3 * 32);
  ASSERT_TRUE(program->Forward(text.batch(), states).ok());
  double sum = 0, squares = 0;  // of the last layer norm's rows
  for (const float x : std::span(states).first(32)) {
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum, 0, 1e-4);
  EXPECT_NEAR(squares / 32, 1, 1e-3);
}

}  // namespace
}  // namespace lepton::nn
