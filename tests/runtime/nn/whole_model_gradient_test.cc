// Whole tiny models against finite differences of their loss.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

// Every trained parameter along a few random directions: the slope of the loss in f32 is too rough
// for single weights.
void CheckGradients(TrainingProgram& program, const Batch& batch, const Targets& targets) {
  ASSERT_TRUE(program.ForwardBackward(batch, targets, 0, 0).ok());
  const std::vector<float> gradients(program.gradients().begin(), program.gradients().end());
  std::vector<float> logits(Predictions(program.signature(), batch) * program.signature().outputs);
  const auto loss_at = [&] { return program.Evaluate(batch, targets, logits).value().sum; };
  for (const ParameterView& view : program.parameters()) {
    if (view.statistic) continue;
    const auto weights = program.weights().subspan(view.offset, view.size);
    const std::vector<float> before(weights.begin(), weights.end());
    for (const uint64_t seed : {1, 2}) {
      const std::vector<float> direction = Noise(weights.size(), seed);
      double slope = 0, size = 0;
      for (size_t i = 0; i < weights.size(); ++i) {
        slope += double{gradients[view.offset + static_cast<int64_t>(i)]} * direction[i];
        size += double{direction[i]} * direction[i];
      }
      const float step = static_cast<float>(2e-2 / std::sqrt(size));
      const auto move = [&](float factor) {
        for (size_t i = 0; i < weights.size(); ++i) {
          weights[i] = before[i] + factor * step * direction[i];
        }
        return loss_at();
      };
      const double measured = (move(1) - move(-1)) / (2.0 * step);
      std::copy(before.begin(), before.end(), weights.begin());
      EXPECT_NEAR(slope, measured, 1e-3 + 0.02 * std::abs(measured)) << view.name;
    }
  }
}

TrainingProgram::Options OptionsFor(const spec::ModelSpec& model) {
  TrainingProgram::Options options;
  options.model = model;
  options.seed = 5;
  return options;
}

// First weights of 0.02 hardly bend anything: larger ones check more.
void Enlarge(TrainingProgram& program) {
  for (const ParameterView& view : program.parameters()) {
    // Away from the kink of relu.
    const bool before_relu = view.name == "pre_classifier.bias";
    for (int64_t i = 0; before_relu && i < view.size; ++i) {
      program.weights()[view.offset + i] = i % 2 == 0 ? 2.0f : -2.0f;
    }
    if (view.shape.size() < 2) continue;
    for (float& w : program.weights().subspan(view.offset, view.size)) w *= 8;
  }
}

struct TextModel {
  std::string style;
  bool per_token;
};
void PrintTo(const TextModel& model, std::ostream* out) {
  *out << model.style << (model.per_token ? " tokens" : " texts");
}

class TransformerGradient : public testing::TestWithParam<TextModel> {};

TEST_P(TransformerGradient, EqualsFiniteDifferences) {
  const auto& [style, per_token] = GetParam();
  spec::ModelSpec tiny = TinyTransformer(style);
  tiny.transformer.width = 16;
  if (style == "mistral") tiny.transformer.window = 4;
  if (style == "llama") {
    tiny.transformer.attention_bias = tiny.transformer.mlp_bias = true;
    tiny.transformer.rope.scaling = "llama3";
    tiny.transformer.rope.factor = 8;
    tiny.transformer.rope.original_context = 16;
  }
  const auto [model, signature] = Resolve(tiny, TextShape(24, 12, 3, per_token));
  const auto program = MustBuild(signature, OptionsFor(model));
  Enlarge(*program);
  const TextBatch batch(signature,
                        {{3, 1, 4, 1, 5, 9, 2, 6}, {2, 7, 18, 2, 8}, {23, 14, 1, 6, 18, 0, 3, 11}});
  std::vector<int32_t> targets = {2, 0, 1};
  if (per_token) {
    targets = Classes(static_cast<size_t>(batch.tokens()), static_cast<int>(signature.outputs), 9);
    targets[4] = kNoTarget;
  }
  CheckGradients(*program, batch.batch(), {.classes = targets});
}

INSTANTIATE_TEST_SUITE_P(Models, TransformerGradient,
                         testing::Values(TextModel{"gpt2", true}, TextModel{"gpt2", false},
                                         TextModel{"llama", true}, TextModel{"llama", false},
                                         TextModel{"mistral", true}, TextModel{"qwen2", true},
                                         TextModel{"qwen3", true}, TextModel{"bert", true},
                                         TextModel{"bert", false}, TextModel{"distilbert", false}));

}  // namespace
}  // namespace lepton::nn
