// Whole tiny models against finite differences of their loss.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/gradient_check.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

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
  if (style == "qwen2" || style == "qwen3") {
    tiny.transformer.rope.scaling = "yarn";
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

// Dropout included: the second forward pass draws the same numbers.
TEST_P(TransformerGradient, IsTheSameWhereActivationsAreComputedAgain) {
  const auto& [style, per_token] = GetParam();
  spec::ModelSpec tiny = TinyTransformer(style);
  tiny.transformer.layers = 3;
  tiny.dropout = 0.1;
  const auto [model, signature] = Resolve(tiny, TextShape(24, 12, 3, per_token));
  const TextBatch batch(signature, {{3, 1, 4, 1, 5, 9, 2, 6}, {2, 7, 18, 2, 8}});
  std::vector<int32_t> targets = {2, 0};
  if (per_token) {
    targets = Classes(static_cast<size_t>(batch.tokens()), static_cast<int>(signature.outputs), 9);
  }
  for (const char* precision : {"f32", "bf16"}) {
    TrainingProgram::Options options = OptionsFor(model);
    options.precision = precision;
    const auto kept = MustBuild(signature, options);
    options.recompute_activations = true;
    const auto repeated = MustBuild(signature, options);
    const double wanted =
        kept->ForwardBackward(batch.batch(), {.classes = targets}, 4, 1).value().sum;
    EXPECT_EQ(repeated->ForwardBackward(batch.batch(), {.classes = targets}, 4, 1).value().sum,
              wanted);
    EXPECT_TRUE(SameBits(repeated->gradients(), kept->gradients())) << precision;
  }
}

// In memory that others use before and after: what the watcher sees is what is kept elsewhere.
TEST_P(TransformerGradient, IsTheSameWhereItIsSeenInPassingOnly) {
  const auto& [style, per_token] = GetParam();
  const auto [model, signature] = Resolve(TinyTransformer(style), TextShape(24, 12, 3, per_token));
  const TextBatch batch(signature, {{3, 1, 4, 1, 5, 9, 2, 6}, {2, 7, 18, 2, 8}});
  std::vector<int32_t> targets = {2, 0};
  if (per_token) {
    targets = Classes(static_cast<size_t>(batch.tokens()), static_cast<int>(signature.outputs), 9);
  }
  for (const char* precision : {"f32", "bf16"}) {
    TrainingProgram::Options options = OptionsFor(model);
    options.precision = precision;
    options.recompute_activations = std::string(precision) == "bf16";
    const auto kept = MustBuild(signature, options);
    options.keeps_gradients = false;
    const auto passing = MustBuild(signature, options);
    EXPECT_TRUE(passing->gradients().empty());
    std::vector<float> seen(kept->gradients().size());
    std::vector<int> times(passing->parameters().size());
    passing->WatchGradients([&](size_t i) {
      const std::span<const float> gradient = passing->gradient(i);
      std::copy(gradient.begin(), gradient.end(), seen.begin() + passing->parameters()[i].offset);
      ++times[i];
    });
    for (const uint64_t step : {4, 5}) {
      times.assign(times.size(), 0);
      ASSERT_TRUE(kept->ForwardBackward(batch.batch(), {.classes = targets}, step, 1).ok());
      ASSERT_TRUE(passing->ForwardBackward(batch.batch(), {.classes = targets}, step, 1).ok());
      EXPECT_EQ(times, std::vector<int>(times.size(), 1));
      EXPECT_TRUE(SameBits(seen, kept->gradients())) << precision;
    }
    passing->WatchGradients(nullptr);
    EXPECT_EQ(passing->ForwardBackward(batch.batch(), {.classes = targets}, 6, 1).status().code(),
              StatusCode::kFailedPrecondition);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TransformerGradient,
                         testing::Values(TextModel{"gpt2", true}, TextModel{"gpt2", false},
                                         TextModel{"llama", true}, TextModel{"llama", false},
                                         TextModel{"mistral", true}, TextModel{"qwen2", true},
                                         TextModel{"qwen3", true}, TextModel{"bert", true},
                                         TextModel{"bert", false}, TextModel{"distilbert", false}));

}  // namespace
}  // namespace lepton::nn
