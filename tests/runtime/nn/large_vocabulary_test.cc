// Language models of so large a vocabulary that the losses of a batch are made in pieces
// (runtime/graph/passes/loss_pieces.h), and those of each of its texts are not.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr int64_t kLargeVocabulary = 66'000, kLongContext = 200;

BuiltModel LargeModel(const std::string& style) {
  spec::ModelSpec model = TinyTransformer(style);
  model.transformer.layers = 1;
  model.transformer.width = 16;
  return Resolve(model, TextShape(kLargeVocabulary, kLongContext, 0, true));
}

std::vector<std::vector<int32_t>> LongTexts(size_t count) {
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < count; ++i)
    texts.push_back(Classes(kLongContext, kLargeVocabulary, 5 + i));
  return texts;
}

std::vector<float> GradientOf(TrainingProgram& program, const Signature& signature,
                              const std::vector<std::vector<int32_t>>& texts, double* loss) {
  const TextBatch batch(signature, texts);
  const std::vector<int32_t> targets = batch.next_tokens();
  const auto sum = program.ForwardBackward(batch.batch(), {.classes = targets}, 1, 0);
  EXPECT_TRUE(sum.ok()) << sum.status().ToString();
  *loss = sum.ok() ? sum->sum : NAN;
  const std::span<float> gradients = program.gradients();
  return {gradients.begin(), gradients.end()};
}

struct VocabularyCase {
  const char* style;  // gpt2 has its embedding as its head, llama a head of its own
  const char* precision;
  bool recompute, keeps_packs;
};

std::ostream& operator<<(std::ostream& out, const VocabularyCase& c) {
  return out << c.style << " " << c.precision << (c.recompute ? " recomputed" : "")
             << (c.keeps_packs ? "" : " packed anew");
}

class LargeVocabulary : public testing::TestWithParam<VocabularyCase> {};

TEST_P(LargeVocabulary, TheGradientOfABatchIsTheSumOfItsTexts) {
  const auto& [style, precision, recompute, keeps_packs] = GetParam();
  const auto [model, signature] = LargeModel(style);
  TrainingProgram::Options options;
  options.model = model;
  options.model.dropout = 0;
  options.precision = precision;
  options.recompute_activations = recompute;
  options.keeps_packs = keeps_packs;
  const auto program = MustBuild(signature, options);
  const auto texts = LongTexts(2);
  double one = 0, other = 0, both = 0;
  const std::vector<float> a = GradientOf(*program, signature, {texts[0]}, &one);
  const std::vector<float> b = GradientOf(*program, signature, {texts[1]}, &other);
  const std::vector<float> sum = GradientOf(*program, signature, texts, &both);
  EXPECT_NEAR(both, one + other, 1e-6 * both);
  double squares = 0, size = 0;
  for (size_t i = 0; i < sum.size(); ++i) {
    const double wanted = double{a[i]} + b[i];
    squares += (sum[i] - wanted) * (sum[i] - wanted);
    size += wanted * wanted;
  }
  // Sums over all classes in two orders; in bf16 they are then rounded, some to the other side.
  EXPECT_LT(std::sqrt(squares / size), std::string(precision) == "bf16" ? 2e-3 : 1e-5);
}

TEST_P(LargeVocabulary, AStepNeedsTheMemoryOfAPiece) {
  const auto& [style, precision, recompute, keeps_packs] = GetParam();
  const auto [model, signature] = LargeModel(style);
  TrainingProgram::Options options;
  options.model = model;
  options.precision = precision;
  options.recompute_activations = recompute;
  options.keeps_packs = keeps_packs;
  const auto program = MustBuild(signature, options);
  double loss = 0;
  GradientOf(*program, signature, LongTexts(4), &loss);
  EXPECT_GT(loss, 0);
  // All logits would be 201 MiB.
  EXPECT_LT(program->arena_bytes(), size_t{96} << 20);
}

TEST_P(LargeVocabulary, LogitsInPiecesAreThoseAtOnce) {
  const auto& [style, precision, recompute, keeps_packs] = GetParam();
  const auto [model, signature] = LargeModel(style);
  TrainingProgram::Options options;
  options.model = model;
  options.precision = precision;
  options.inference_precision = recompute && keeps_packs ? "int8" : "";
  options.keeps_packs = keeps_packs;
  const auto program = MustBuild(signature, options);
  const TextBatch batch(signature, LongTexts(3));
  const std::vector<int32_t> classes = batch.next_tokens();
  std::vector<float> whole(static_cast<size_t>(batch.tokens() * kLargeVocabulary));
  for (int version = 0; version < 2; ++version) {
    int64_t taken = 0, calls = 0;
    const auto piecewise = program->EvaluatePieces(
        batch.batch(), {.classes = classes}, [&](int64_t first, std::span<const float> logits) {
          EXPECT_EQ(first, taken);
          EXPECT_LE(logits.size_bytes(), size_t{64} << 20);
          std::copy(logits.begin(), logits.end(), whole.begin() + first * kLargeVocabulary);
          taken += static_cast<int64_t>(logits.size()) / kLargeVocabulary;
          ++calls;
          return Status::Ok();
        });
    ASSERT_TRUE(piecewise.ok()) << piecewise.status().ToString();
    EXPECT_EQ(taken, batch.tokens());
    EXPECT_EQ(calls, 3);
    EXPECT_LT(program->arena_bytes(), size_t{16} << 20);
    std::vector<float> logits(whole.size());
    const auto sum = program->Evaluate(batch.batch(), {.classes = classes}, logits);
    ASSERT_TRUE(sum.ok()) << sum.status().ToString();
    EXPECT_TRUE(SameBits(logits, whole));
    EXPECT_EQ(sum->sum, piecewise->sum);
    EXPECT_EQ(sum->count, piecewise->count);
    for (float& weight : program->weights()) weight *= 1.5f;
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, LargeVocabulary,
                         testing::Values(VocabularyCase{"gpt2", "f32", false, true},
                                         VocabularyCase{"gpt2", "bf16", true, false},
                                         VocabularyCase{"llama", "f32", true, true},
                                         VocabularyCase{"llama", "bf16", false, true}));

}  // namespace
}  // namespace lepton::nn
