// Weights that are stored in halves: the bits of the same numbers in f32, without a copy of all.
#include "runtime/nn/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr int64_t kVocabulary = 64, kContext = 48, kSide = 16;

// Numbers that halves can have, of some parameters; as halves, and in f32.
class Stored {
 public:
  Stored(const std::vector<ParameterView>& parameters, DType dtype, uint64_t seed) {
    for (const ParameterView& parameter : parameters) {
      const bool matrix = parameter.shape.size() > 1;
      const auto count = static_cast<size_t>(parameter.size);
      auto& half = halves_.emplace_back();
      auto& whole = floats_.emplace_back();
      for (const float noise : Noise(count, ++seed, matrix ? 0.25f : 0.1f)) {
        // Gains and variances are about 1. Some weights are subnormal numbers of f16.
        const float value = matrix ? (half.size() % 9 == 5 ? noise * 0x1p-16f : noise) : 1 + noise;
        const bool f16 = dtype == DType::kF16;
        half.push_back(f16 ? F16::FromFloat(value).bits : BF16::FromFloat(value).bits);
        whole.push_back(f16 ? F16::ToFloat({half.back()}) : BF16::ToFloat({half.back()}));
      }
      halves[parameter.name] = {dtype, parameter.shape, half.data()};
      floats[parameter.name] = {DType::kF32, parameter.shape, whole.data()};
      if (matrix) largest_bytes = std::max(largest_bytes, count * sizeof(float));
      all_bytes += count * sizeof(float);
    }
  }

  SourceTensors halves, floats;
  size_t all_bytes = 0, largest_bytes = 0;  // in f32

 private:
  std::vector<std::vector<uint16_t>> halves_;
  std::vector<std::vector<float>> floats_;
};

struct Subject {
  std::string name;
  BuiltModel built;
  bool texts = false;

  // `rows` of them, of as many tokens as `length`, and what is answered.
  std::vector<float> Answer(InferenceProgram& program, size_t rows, size_t length) const {
    const Signature& signature = built.signature;
    const auto forward = [&](const Batch& batch) {
      std::vector<float> logits(
          static_cast<size_t>(Predictions(signature, batch) * signature.outputs));
      const Status done = program.Forward(batch, logits);
      EXPECT_TRUE(done.ok()) << done.ToString();
      return logits;
    };
    if (texts) {
      std::vector<std::vector<int32_t>> ids;
      for (size_t row = 0; row < rows; ++row) {
        ids.push_back(Classes(length, kVocabulary, row + 1));
      }
      return forward(TextBatch(signature, ids).batch());
    }
    std::vector<float> x = Noise(rows * kSide * kSide, 5);
    std::vector<int64_t> extents = signature.inputs.front().type.shape.extents();
    extents[0] = static_cast<int64_t>(rows);
    Batch batch;
    batch.inputs.push_back({x.data(), {DType::kF32, Shape(std::move(extents))}});
    return forward(batch);
  }
};

Subject Text(const std::string& style) {
  const bool language = style != "bert";
  const DataShape shape = TextShape(kVocabulary, kContext, language ? 0 : 3, language);
  return {style, Resolve(TinyTransformer(style), shape), true};
}

Subject Image(const std::string& arch) {
  spec::ModelSpec model = spec::DefaultModel(arch);
  if (arch == "vit") {
    model.vit.layers = model.vit.heads = 2;
    model.vit.width = 32;
  } else {
    model.resnet.stem_width = 8;
    model.resnet.widths = {8, 16};
    model.resnet.depths = {1, 1};
  }
  return {arch, Resolve(model, {.kind = DataShape::Kind::kImages,
                                .channels = 1,
                                .height = kSide,
                                .width = kSide,
                                .outputs = 10})};
}

Subject Layers() {
  return {"mlp", {{.hidden = {96, 96, 96, 96}}, Signature::Features(kSide * kSide, 10)}};
}

Subject Named(const std::string& name) {
  if (name == "mlp") return Layers();
  return name == "vit" || name == "resnet18" ? Image(name) : Text(name);
}

std::shared_ptr<StoredWeights> MustStore(const SourceTensors& tensors,
                                         const InferenceProgram& program) {
  auto weights = StoredWeights::Make(tensors, program.parameters());
  EXPECT_TRUE(weights.ok()) << weights.status().ToString();
  return weights.value();
}

std::unique_ptr<InferenceProgram> MustMake(const Subject& subject, const std::string& precision) {
  auto program = InferenceProgram::Build(subject.built.signature, subject.built.model, precision);
  EXPECT_TRUE(program.ok()) << program.status().ToString();
  return std::move(program).value();
}

std::vector<float> GoOn(DecodingProgram& decoder) {
  std::vector<float> logits(kVocabulary), all;
  decoder.Truncate(0, 0);
  for (const size_t tokens : {5, 1, 1}) {
    const std::vector<int32_t> ids = Classes(tokens, kVocabulary, 3);
    const DecodingProgram::Extension extension[] = {{0, ids}};
    const Status done = decoder.Extend(extension, logits);
    EXPECT_TRUE(done.ok()) << done.ToString();
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

class HalvesGive : public testing::TestWithParam<std::tuple<const char*, const char*, DType>> {};

TEST_P(HalvesGive, TheBitsOfF32) {
  const auto& [name, precision, dtype] = GetParam();
  const Subject subject = Named(name);
  const auto program = MustMake(subject, precision), plain = MustMake(subject, precision);
  // Bound twice, so that all plans meet other weights.
  const Stored first(program->parameters(), dtype, 100), second(program->parameters(), dtype, 900);
  for (const Stored* stored : {&first, &second}) {
    const auto weights = MustStore(stored->halves, *program);
    ASSERT_TRUE(program->Bind(weights).ok());
    ASSERT_TRUE(program->Prepare().ok());
    const auto mapped = MustStore(stored->floats, *plain);
    ASSERT_TRUE(plain->Bind(mapped).ok());
    ASSERT_TRUE(plain->Prepare().ok());
    const auto expect_same = [&](size_t rows, size_t length) {
      const std::vector<float> answer = subject.Answer(*program, rows, length);
      EXPECT_TRUE(SameBits(answer, subject.Answer(*plain, rows, length))) << rows;
      EXPECT_THAT(answer, testing::Each(testing::Truly([](float x) { return std::isfinite(x); })));
    };
    expect_same(1, 8);
    expect_same(3, 8);
    if (subject.built.signature.per_token) {
      const auto decoder = program->MakeDecoder({.slots = 1, .context = kContext}).value();
      const auto other = plain->MakeDecoder({.slots = 1, .context = kContext}).value();
      EXPECT_TRUE(SameBits(GoOn(*decoder), GoOn(*other)));
      expect_same(2, 40);
      EXPECT_TRUE(SameBits(GoOn(*decoder), GoOn(*other)));
    }
    expect_same(1, 8);
    EXPECT_EQ(mapped->copies_made(), 0);
    EXPECT_LE(weights->copied_bytes(), weights->most_copied_bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, HalvesGive,
                         testing::Combine(testing::Values("mlp", "resnet18", "vit", "gpt2", "llama",
                                                          "qwen3", "bert"),
                                          testing::Values("f32", "bf16", "int8"),
                                          testing::Values(DType::kBF16, DType::kF16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param) + "_" +
                                  std::string(DTypeName(std::get<2>(info.param)));
                         });

class HalvesTake : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

// What is packed has an f32 copy while it is packed, one tensor after the other, and not again for
// another batch size or a decoder.
TEST_P(HalvesTake, WhatPassesReadAndOneTensorMore) {
  const auto& [name, precision] = GetParam();
  const Subject subject = Named(name);
  const auto program = MustMake(subject, precision);
  const Stored stored(program->parameters(), DType::kBF16, 7);
  size_t read = 0;  // vectors; tables of tokens and places are read as they are stored
  for (const ParameterView& view : program->parameters()) {
    if (view.shape.size() == 1) read += static_cast<size_t>(view.size) * sizeof(float);
  }
  ASSERT_LT(read + stored.largest_bytes, stored.all_bytes / 2);
  const auto weights = MustStore(stored.halves, *program);
  ASSERT_TRUE(program->Bind(weights).ok());
  ASSERT_TRUE(program->Prepare().ok());
  EXPECT_EQ(weights->copies_made(), 0);
  subject.Answer(*program, 1, 8);
  const int64_t once = weights->copies_made();
  EXPECT_GT(once, 0);
  EXPECT_LE(once, static_cast<int64_t>(program->parameters().size()));
  const size_t packs = program->pack_bytes();
  EXPECT_GT(packs, 0);
  subject.Answer(*program, 3, 8);
  subject.Answer(*program, 2, 20);
  if (subject.built.signature.per_token) {
    GoOn(*program->MakeDecoder({.slots = 1, .context = kContext}).value());
  }
  EXPECT_EQ(weights->copies_made(), once);
  EXPECT_EQ(program->pack_bytes(), packs);
  EXPECT_LE(weights->copied_bytes(), read);
  EXPECT_LE(weights->most_copied_bytes(), read + stored.largest_bytes);
}

INSTANTIATE_TEST_SUITE_P(Models, HalvesTake,
                         testing::Combine(testing::Values("mlp", "gpt2", "llama", "qwen3"),
                                          testing::Values("f32", "bf16", "int8")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param);
                         });

TEST(StoredWeights, EveryF16BecomesItsNumber) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 0x1f);
    const float fraction = static_cast<float>(bits & 0x3ff) + (exponent == 0 ? 0 : 0x400);
    const float sign = (bits & 0x8000) != 0 ? -1 : 1;
    const float got = F16::ToFloat({static_cast<uint16_t>(bits)});
    if (exponent < 31) {
      EXPECT_EQ(got, sign * std::ldexp(fraction, std::max(exponent, 1) - 25)) << bits;
      EXPECT_EQ(std::signbit(got), sign < 0) << bits;
    } else if ((bits & 0x3ff) == 0) {
      EXPECT_EQ(got, sign * std::numeric_limits<float>::infinity());
    } else {
      EXPECT_TRUE(std::isnan(got));
    }
  }
}

TEST(StoredWeights, ThoseWhoKeepACopyShareIt) {
  const std::vector<uint16_t> halves = {0x3f80, 0xc000};  // 1, -2
  const std::vector<float> floats = {3, 4, 5};
  const SourceTensors tensors = {
      {"a", {DType::kBF16, {2}, halves.data()}},
      {"b", {DType::kF32, {2}, floats.data()}},
      {"c", {DType::kF32, {2}, reinterpret_cast<const char*>(floats.data()) + 1}}};
  const auto weights =
      StoredWeights::Make(tensors, {{"a", {2}, 0, 2}, {"b", {2}, 2, 2}, {"c", {2}, 4, 2}}).value();
  EXPECT_EQ(weights->Floats(1).get(), floats.data());
  EXPECT_EQ(weights->copies_made(), 0);
  auto one = weights->Floats(0);
  EXPECT_EQ(one.get()[0], 1);
  EXPECT_EQ(one.get()[1], -2);
  EXPECT_EQ(weights->Floats(0), one);
  EXPECT_EQ(weights->copies_made(), 1);
  EXPECT_EQ(weights->copied_bytes(), 8u);
  one.reset();
  EXPECT_EQ(weights->copied_bytes(), 0u);
  const auto unaligned = weights->Floats(2);
  EXPECT_EQ(0, std::memcmp(unaligned.get(), tensors.at("c").data, 8));
  EXPECT_EQ(weights->copies_made(), 2);
  EXPECT_EQ(weights->most_copied_bytes(), 8u);
}

}  // namespace
}  // namespace lepton::nn
