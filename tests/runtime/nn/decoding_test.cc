// Texts that go on from a cache: the bits of computing them anew each time, in whatever steps and
// company.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr int64_t kVocabulary = 128, kContext = 300;

// A model with first weights, ready to compute.
class Language {
 public:
  Language(const spec::ModelSpec& spec, const std::string& precision) {
    const auto [model, signature] = Resolve(spec, TextShape(kVocabulary, kContext, 0, true));
    TrainingProgram::Options options;
    options.model = model;
    options.seed = 3;
    const auto training = MustBuild(signature, options);
    weights_.assign(training->weights().begin(), training->weights().end());
    for (size_t i = 0; i < weights_.size(); ++i) weights_[i] *= 4;  // far from all alike
    auto built = InferenceProgram::Build(signature, model, precision);
    EXPECT_TRUE(built.ok()) << built.status().ToString();
    program = *std::move(built);
    std::copy(weights_.begin(), weights_.end(), program->weights().begin());
    EXPECT_TRUE(program->Prepare().ok());
  }

  // What follows the text, computed from its beginning.
  std::vector<float> Whole(const std::vector<int32_t>& text) {
    const TextBatch batch(program->signature(), {text});
    std::vector<float> logits(text.size() * kVocabulary);
    EXPECT_TRUE(program->Forward(batch.batch(), logits).ok());
    return {logits.end() - kVocabulary, logits.end()};
  }

  std::unique_ptr<InferenceProgram> program;

 private:
  std::vector<float> weights_;
};

std::vector<int32_t> RandomText(int64_t length, uint64_t seed) {
  std::vector<int32_t> text;
  for (int64_t i = 0; i < length; ++i) {
    text.push_back(static_cast<int32_t>((seed * 7919 + i * i * 31 + i * 17) % kVocabulary));
  }
  return text;
}

std::unique_ptr<DecodingProgram> MustDecode(InferenceProgram& program, int64_t slots) {
  auto decoder = program.MakeDecoder({.slots = slots, .context = kContext});
  EXPECT_TRUE(decoder.ok()) << decoder.status().ToString();
  return *std::move(decoder);
}

// A style, and how its positions are made for longer texts.
spec::ModelSpec ModelOf(const std::string& name) {
  const size_t end = name.find('_');
  spec::ModelSpec model = TinyTransformer(name.substr(0, end));
  if (end == name.npos) return model;
  spec::RopeSpec& rope = model.transformer.rope;
  rope.scaling = name.substr(end + 1);
  rope.base = 100;
  rope.factor = 4;
  rope.original_context = 64;
  rope.short_factor = {1, 1, 1, 1};
  rope.long_factor = {1, 1.5, 2.5, 4};
  return model;
}

class Decoding : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Decoding, GivesTheBitsOfTheWholeText) {
  const auto [style, precision] = GetParam();
  Language language(ModelOf(style), precision);
  const auto decoder = MustDecode(*language.program, 3);
  // Three texts of different lengths begin, then go on at their own speeds; one ends and another
  // takes its slot.
  std::vector<std::vector<int32_t>> texts = {RandomText(280, 1), RandomText(290, 2),
                                             RandomText(120, 3)};
  const size_t starts[] = {40, 1, 100};
  const size_t speeds[] = {1, 3, 1};
  std::vector<size_t> said(3);
  for (int step = 0; step < 45; ++step) {
    if (step == 25) {
      texts[2] = RandomText(260, 4);
      said[2] = 0;
      decoder->Truncate(2, 0);
    }
    if (step == 30) {  // some of the text is taken back
      said[1] -= 2;
      decoder->Truncate(1, static_cast<int64_t>(said[1]));
    }
    std::vector<DecodingProgram::Extension> extensions;
    for (size_t slot = 0; slot < 3; ++slot) {
      const size_t count = said[slot] == 0 ? starts[slot] : speeds[slot];
      if (said[slot] + count > texts[slot].size()) continue;
      extensions.push_back(
          {static_cast<int64_t>(slot), std::span(texts[slot]).subspan(said[slot], count)});
      said[slot] += count;
    }
    std::vector<float> logits(extensions.size() * kVocabulary);
    const Status status = decoder->Extend(extensions, logits);
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (size_t i = 0; i < extensions.size(); ++i) {
      const auto slot = static_cast<size_t>(extensions[i].slot);
      EXPECT_EQ(decoder->length(extensions[i].slot), static_cast<int64_t>(said[slot]));
      if (step % 4 != 0 && step < 40) continue;  // computing all anew takes time
      const std::vector<int32_t> text(texts[slot].begin(), texts[slot].begin() + said[slot]);
      const auto got = std::span(logits).subspan(i * kVocabulary, kVocabulary);
      EXPECT_TRUE(SameBits(language.Whole(text), got)) << "step " << step << ", text " << slot;
      const auto [least, most] = std::minmax_element(got.begin(), got.end());
      EXPECT_TRUE(std::isfinite(*most) && *most - *least > 0.1f) << *least << " to " << *most;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryFamily, Decoding,
                         testing::Combine(testing::Values("gpt2", "llama", "qwen2", "qwen3",
                                                          "mistral", "llama_yarn",
                                                          "qwen3_longrope"),
                                          testing::Values("f32", "bf16", "int8")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param);
                         });

// Beyond what one pass takes, in pieces; and where a window ends before.
TEST(DecodingLengths, LongPromptsComeInPieces) {
  spec::ModelSpec spec = TinyTransformer("mistral");
  spec.transformer.window = 500;
  const auto [model, signature] = Resolve(spec, TextShape(kVocabulary, 6000, 0, true));
  auto program = InferenceProgram::Build(signature, model, "f32").value();
  uint32_t seed = 1;
  for (float& weight : program->weights()) {
    seed = seed * 1664525 + 1013904223;
    weight = static_cast<float>(seed >> 8) * 0x1p-25f - 0.25f;
  }
  ASSERT_TRUE(program->Prepare().ok());
  auto decoder = program->MakeDecoder({.slots = 1, .context = 6000}).value();
  const std::vector<int32_t> text = RandomText(5000, 9);
  std::vector<float> logits(kVocabulary), whole(text.size() * kVocabulary);
  const DecodingProgram::Extension all[] = {{0, text}};
  ASSERT_TRUE(decoder->Extend(all, logits).ok());
  const TextBatch batch(signature, {text});
  ASSERT_TRUE(program->Forward(batch.batch(), whole).ok());
  EXPECT_TRUE(SameBits(std::span(whole).last(kVocabulary), logits));
  const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
  EXPECT_TRUE(std::isfinite(*most) && *most > *least);
}

// Two texts of one padded length, of which one has no room for the padding.
TEST(DecodingLengths, ATextNearItsEndShortensNoOther) {
  Language language(TinyTransformer("llama"), "f32");
  for (const bool first : {true, false}) {
    auto decoder = language.program->MakeDecoder({.slots = 2, .context = 288}).value();
    const std::vector<int32_t> full = RandomText(288, 1), other = RandomText(10, 2);
    std::vector<float> logits(kVocabulary), both(2 * kVocabulary);
    const DecodingProgram::Extension before[] = {{1, std::span(full).first(279)}};
    ASSERT_TRUE(decoder->Extend(before, logits).ok());
    std::vector<DecodingProgram::Extension> extensions = {{0, other}, {1, std::span(full).last(9)}};
    if (!first) std::swap(extensions[0], extensions[1]);
    ASSERT_TRUE(decoder->Extend(extensions, both).ok());
    const std::span<const float> of_other = std::span(both).subspan(first ? 0 : kVocabulary);
    const std::span<const float> of_full = std::span(both).subspan(first ? kVocabulary : 0);
    EXPECT_TRUE(SameBits(language.Whole(other), of_other.first(kVocabulary)));
    EXPECT_TRUE(SameBits(language.Whole(full), of_full.first(kVocabulary)));
  }
}

TEST(DecodingErrors, SayWhatDoesNotFit) {
  Language language(TinyTransformer("gpt2"), "f32");
  const auto decoder = MustDecode(*language.program, 2);
  const std::vector<int32_t> text = RandomText(kContext, 1), bad = {1, kVocabulary};
  std::vector<float> logits(kVocabulary), two(2 * kVocabulary);
  const auto error = [&](std::vector<DecodingProgram::Extension> extensions, std::span<float> to) {
    return decoder->Extend(extensions, to).ToString();
  };
  EXPECT_THAT(error({{2, text}}, logits), testing::HasSubstr("slot 2"));
  EXPECT_THAT(error({{0, text}, {0, text}}, two), testing::HasSubstr("named once"));
  EXPECT_THAT(error({{0, {}}}, logits), testing::HasSubstr("no new tokens"));
  EXPECT_THAT(error({{0, bad}}, logits), testing::HasSubstr("128 is out of range"));
  EXPECT_THAT(error({{0, text}}, two), testing::HasSubstr("logits"));
  EXPECT_EQ(decoder->length(0), 0);
  ASSERT_EQ(error({{0, text}}, logits), Status::Ok().ToString());
  EXPECT_THAT(error({{0, std::span(text).first(1)}}, logits), testing::HasSubstr("room for 300"));
  EXPECT_EQ(decoder->length(0), kContext);

  EXPECT_FALSE(language.program->MakeDecoder({.slots = 1, .context = kContext + 1}).ok());
  EXPECT_FALSE(language.program->MakeDecoder({.slots = 0, .context = 8}).ok());
  const auto [model, signature] =
      Resolve(TinyTransformer("bert"), TextShape(kVocabulary, kContext, 3, false));
  auto classifier = InferenceProgram::Build(signature, model, "f32").value();
  (void)classifier->weights();
  EXPECT_FALSE(classifier->MakeDecoder({.slots = 1, .context = 8}).ok());
  ASSERT_TRUE(classifier->Prepare().ok());
  EXPECT_THAT(classifier->MakeDecoder({.slots = 1, .context = 8}).status().ToString(),
              testing::HasSubstr("language models"));
}

}  // namespace
}  // namespace lepton::nn
