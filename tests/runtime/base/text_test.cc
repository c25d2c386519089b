#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "runtime/base/json_text.h"
#include "runtime/base/pattern.h"
#include "runtime/base/utf8.h"

namespace lepton {
namespace {

using ::testing::HasSubstr;

TEST(Utf8, InvalidSequencesAreFoundAndReplaced) {
  EXPECT_EQ(InvalidUtf8At("plain text, and more of it"), std::nullopt);
  EXPECT_EQ(InvalidUtf8At("\u00e4\u20ac\U0001F600"), std::nullopt);
  const std::pair<const char*, size_t> cases[] = {{"a\xff", 1},
                                                  {"\xc3", 0},
                                                  {"\xc0\xaf", 0},
                                                  {"12345678\xed\xa0\x80", 8},
                                                  {"\xf4\x90\x80\x80", 0}};
  for (const auto& [text, at] : cases) EXPECT_EQ(InvalidUtf8At(text), at) << text;
  EXPECT_EQ(ReplaceInvalidUtf8("a\xff z"), "a\uFFFD z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xe2\x82"), "\uFFFD");
}

TEST(Utf8, PrefixesEndBetweenCharacters) {
  const std::string text = "a\u00e9\u20ac\U0001F600";  // 1 + 2 + 3 + 4 bytes
  const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (size_t bytes = 0; bytes < std::size(whole); ++bytes) {
    EXPECT_EQ(Utf8Prefix(text, bytes), text.substr(0, whole[bytes])) << bytes;
  }
}

TEST(ParseJson, RefusesWhatWouldOverflowTheStack) {
  EXPECT_EQ(ParseJson("{\"a\": [1, 2]}")->at("a").at(1), 2);
  EXPECT_TRUE(ParseJson(std::string(64, '[') + std::string(64, ']')).ok());
  const auto deep = ParseJson("{\"a\": " + std::string(1'000'000, '[') + "\"");
  EXPECT_THAT(deep.status().message(), HasSubstr("nested deeper than 64 levels"));
  EXPECT_TRUE(ParseJson("\"" + std::string(100, '[') + "\\\"[\"").ok()) << "in a text";
  EXPECT_THAT(ParseJson("{\"a\": }").status().message(), HasSubstr("not valid JSON: line 1"));
  EXPECT_FALSE(ParseJson("").ok());
}

TEST(Pattern, FindsAndRefuses) {
  const auto pattern = Pattern::Compile("CUDA error: \\d+$");
  ASSERT_TRUE(pattern.ok()) << pattern.status().ToString();
  EXPECT_TRUE(pattern->Found("E: CUDA error: 719").value());
  EXPECT_FALSE(pattern->Found("E: CUDA error: none").value());
  EXPECT_FALSE(pattern->Found("\xff").value()) << "bytes, whatever they are";
  EXPECT_THAT(Pattern::Compile("(unclosed").status().message(),
              HasSubstr("not a regular expression: missing closing parenthesis, at character 10"));
  EXPECT_FALSE(Pattern::Compile(std::string(5000, 'a')).ok());
}

TEST(Pattern, GivesUpWhereASearchWouldTakeForever) {
  const auto pattern = Pattern::Compile("(a+)+$");
  ASSERT_TRUE(pattern.ok());
  EXPECT_TRUE(pattern->Found(std::string(1000, 'a')).value());
  const auto found = pattern->Found(std::string(1000, 'a') + "!");
  EXPECT_EQ(found.status().code(), StatusCode::kResourceExhausted);
}

TEST(Pattern, TheBoundIsThatOfAllPlacesWhereAMatchMayBegin) {
  const std::string line(1024, 'a');
  std::string scans = "(?:a*+b";
  for (int i = 0; i < 700; ++i) scans += "|a*+" + std::string(1, static_cast<char>('b' + i % 20));
  for (const std::string& text : {std::string("(?:a|aa){0,15}[bc]"), scans + ")"}) {
    const auto begun = std::chrono::steady_clock::now();
    const auto found = Pattern::Compile(text)->Found(line);
    EXPECT_EQ(found.status().code(), StatusCode::kResourceExhausted) << text.substr(0, 30);
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(1));
  }
  // Items that pass over nearly all of it, and fail.
  std::string repeats = "(?:b";
  for (int i = 0; i < 370; ++i) repeats += "|\\X{1024}c";
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_FALSE(Pattern::Compile(repeats + ")")->Found(line).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(1));
  // A line of the length that policies see, looked through from each of its characters.
  const auto found = Pattern::Compile("\\S+failed")->Found(std::string(1000, 'a') + " unfailed");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_TRUE(*found);
}

}  // namespace
}  // namespace lepton
