// Language models learn, repeat themselves bit by bit, and look where they may.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

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

// The answers of a model with first weights that are far from all alike.
class Answers {
 public:
  Answers(const spec::ModelSpec& spec, const DataShape& shape, const std::string& precision) {
    const auto [model, signature] = Resolve(spec, shape);
    const auto training = MustBuild(signature, OptionsFor(model, 1));
    weights_.assign(training->weights().begin(), training->weights().end());
    for (float& weight : weights_) weight *= 4;
    program_ = InferenceProgram::Build(signature, model, precision).value();
    std::copy(weights_.begin(), weights_.end(), program_->weights().begin());
    EXPECT_TRUE(program_->Prepare().ok());
  }
  // Of the texts together, all padded to `length` tokens at least.
  std::vector<float> Of(const std::vector<std::vector<int32_t>>& texts, size_t length) {
    const TextBatch batch(program_->signature(), texts, length);
    std::vector<float> logits(Predictions(program_->signature(), batch.batch()) *
                              program_->signature().outputs);
    EXPECT_TRUE(program_->Forward(batch.batch(), logits).ok());
    return logits;
  }

 private:
  std::vector<float> weights_;
  std::unique_ptr<InferenceProgram> program_;
};

std::vector<int32_t> TextOf(int32_t length, int32_t seed) {
  std::vector<int32_t> text;
  for (int32_t i = 0; i < length; ++i) text.push_back((seed * 61 + i * i * 31 + i * 17) % 128);
  return text;
}

// Texts that are computed together are padded to the longest of them: an answer has the same bits
// whatever the company, also where the padding fills whole tiles of keys.
TEST_P(Encoder, ATextHasTheSameBitsHoweverItIsPadded) {
  std::set<std::vector<float>> different;
  for (const char* pool : {"first", "mean", "last"}) {
    for (const char* precision : {"f32", "bf16", "int8"}) {
      spec::ModelSpec tiny = TinyTransformer(GetParam());
      tiny.transformer.pool = pool;
      Answers answers(tiny, TextShape(128, 768, 3, false), precision);
      for (const int32_t size : {1, 5, 16, 31, 150, 270}) {
        const std::vector<int32_t> text = TextOf(size, size);
        const std::vector<float> alone = answers.Of({text}, 0);
        different.insert(alone);
        for (const size_t length : {16, 17, 32, 272, 300, 768}) {
          if (length < text.size()) continue;
          const std::vector<float> padded = answers.Of({text}, length);
          EXPECT_TRUE(SameBits(alone, padded))
              << pool << " " << precision << ": " << size << " tokens padded to " << length << ": "
              << alone[0] << " and " << padded[0];
        }
        const std::vector<float> together =
            answers.Of({TextOf(3, 7), text, TextOf(290, 8), TextOf(40, 9), TextOf(1, 2)}, 0);
        EXPECT_TRUE(SameBits(alone, std::span(together).subspan(3, 3)))
            << pool << " " << precision << ": " << size << " tokens among others";
      }
    }
  }
  EXPECT_GT(different.size(), 40u);
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

// Each token's, too: of a chunk or a text of a batch job, whose losses they are.
TEST(LanguageModel, TokensHaveTheSameBitsHoweverTheirTextIsPadded) {
  for (const char* style : {"gpt2", "llama", "mistral", "qwen3"}) {
    for (const char* precision : {"f32", "bf16", "int8"}) {
      spec::ModelSpec tiny = TinyTransformer(style);
      if (tiny.transformer.window > 0) tiny.transformer.window = 20;
      Answers answers(tiny, TextShape(128, 768, 0, true), precision);
      for (const int32_t size : {1, 5, 31, 270}) {
        const std::vector<int32_t> text = TextOf(size, size);
        const std::vector<float> alone = answers.Of({text}, 0);
        for (const size_t length : {32, 272, 768}) {
          if (length < text.size()) continue;
          const std::vector<float> padded = answers.Of({text}, length);
          EXPECT_TRUE(SameBits(alone, std::span(padded).first(alone.size())))
              << style << " " << precision << ": " << size << " tokens padded to " << length;
        }
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
