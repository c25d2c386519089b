// What the public reference implementation made of nasty_texts.json, a tokenizer of each kind:
// tests/golden/tokenizer, written by make_goldens.sh. compare_public.sh does the same with whole
// tokenizers where there is a network.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "runtime/formats/tokenizer/tokenizer.h"

namespace lepton::tokenizer {
namespace {

using nlohmann::json;

json ReadJson(const std::string& path) {
  auto text = ReadFile(path);
  EXPECT_TRUE(text.ok()) << text.status().ToString();
  return json::parse(std::move(text).value_or("null"));
}

class TokenizerGoldens : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldens, IdsOffsetsAndTextsAreTheReferences) {
  const json golden = ReadJson(std::string(LEPTON_GOLDENS) + "/" + GetParam() + ".json");
  const json texts = ReadJson(LEPTON_NASTY_TEXTS);
  const auto tokenizer = Tokenizer::FromJson(golden["tokenizer"].dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  ASSERT_EQ(texts.size(), golden["encodings"].size());
  ASSERT_GT(texts.size(), 50u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    const json& wanted = golden["encodings"][i];
    const auto encoding = (*tokenizer)->Encode(text);
    ASSERT_TRUE(encoding.ok()) << encoding.status().ToString();
    json offsets = json::array();
    for (const Offsets& at : encoding->offsets) {
      offsets.push_back(at.begin);
      offsets.push_back(at.end);
    }
    EXPECT_EQ(json(encoding->ids), wanted["ids"]) << i << ": " << texts[i];
    EXPECT_EQ(offsets, wanted["offsets"]) << i << ": " << texts[i];
    EXPECT_EQ((*tokenizer)->Decode(encoding->ids).value(), wanted["decoded"].get<std::string>())
        << i << ": " << texts[i];
    EXPECT_EQ((*tokenizer)->EncodeIds(text).value(), encoding->ids);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGoldens,
                         testing::Values("byte_level", "byte_fallback", "word_piece", "unigram"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lepton::tokenizer
