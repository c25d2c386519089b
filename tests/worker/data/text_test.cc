// Texts into tokens and into micro-batches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/storage/status_matchers.h"
#include "tests/worker/data/tiny_tokenizer.h"
#include "worker/data/length_groups.h"
#include "worker/data/text_encoder.h"
#include "worker/data/text_rows.h"
#include "worker/data/token_files.h"

namespace lepton::worker {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

class TextTest : public ::testing::Test {
 protected:
  TextTest()
      : objects_(storage::ObjectStore::Open(folder_.path()).value()),
        derived_(*objects_, [] { return false; }) {}

  std::shared_ptr<const TextEncoder> Tiny() {
    const auto digest = objects_->Put(testing::TinyTokenizerJson()).value();
    return TextEncoder::Load(*objects_, digest).value();
  }
  std::shared_ptr<const TextEncoder> Bytes() {
    return TextEncoder::Load(*objects_, "bytes").value();
  }
  static storage::Column TextColumn(const std::string& name, std::vector<std::string> cells) {
    storage::Column column;
    column.name = name;
    column.type = storage::ColumnType::kText;
    for (size_t i = 0; i < cells.size(); ++i) column.codes.push_back(static_cast<int32_t>(i));
    column.dictionary = std::move(cells);
    return column;
  }
  Result<std::shared_ptr<const TokenRows>> Rows(const storage::Column& text,
                                                const storage::Column* pair,
                                                const TextEncoder& encoder, int64_t context) {
    return TokensOfRows(std::string(64, 'a'), text, pair, encoder, context, derived_,
                        [this](std::string_view, uint64_t, uint64_t) { ++told_; });
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> objects_;
  DerivedFiles derived_;
  int told_ = 0;
};

TEST_F(TextTest, BytesAreTheirOwnIds) {
  const auto bytes = Bytes();
  EXPECT_EQ(bytes->vocabulary(), 256);
  EXPECT_THAT(bytes->EncodeText("a\xC3\xA9", 10)->ids, ElementsAre('a', 0xC3, 0xA9));
  EXPECT_THAT(bytes->EncodeText("", 10)->ids, ElementsAre(0));
  EXPECT_THAT(bytes->EncodeText("abcd", 2)->ids, ElementsAre('a', 'b'));
  const TokenText pair = bytes->EncodePair("abcde", "xy", 6).value();
  EXPECT_THAT(pair.ids, ElementsAre('a', 'b', 'c', 0, 'x', 'y'));
  EXPECT_THAT(pair.types, ElementsAre(0, 0, 0, 0, 1, 1));
  EXPECT_EQ(bytes->Decode({'a', 0xC3, 0xA9, 0xFF, 0xE2, 0x82}).value(),
            "a\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(TextTest, CutTextsKeepWhatTheTokenizerAdds) {
  const auto tiny = Tiny();
  EXPECT_EQ(tiny->vocabulary(), 16);
  EXPECT_THAT(tiny->EncodeText("The cats sat", 16)->ids, ElementsAre(2, 4, 5, 9, 7, 3));
  EXPECT_THAT(tiny->EncodeText("The cats sat", 4)->ids, ElementsAre(2, 4, 5, 3));
  const TokenText pair = tiny->EncodePair("the cat sat on a mat", "dog ran", 8).value();
  EXPECT_THAT(pair.ids, ElementsAre(2, 4, 5, 7, 3, 6, 8, 3));
  EXPECT_THAT(pair.types, ElementsAre(0, 0, 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(tiny->EncodeStream("the dog").value(), ElementsAre(4, 6));
  EXPECT_EQ(tiny->Decode({2, 4, 6, 3}).value(), "the dog");
}

// RoBERTa's pairs have one type for both texts.
TEST_F(TextTest, TheLongerTextIsCutWhateverItsType) {
  auto json = nlohmann::json::parse(testing::TinyTokenizerJson());
  json["post_processor"]["type"] = "RobertaProcessing";
  json["post_processor"]["trim_offsets"] = true;
  json["post_processor"]["add_prefix_space"] = false;
  const auto roberta = TextEncoder::Load(*objects_, objects_->Put(json.dump()).value()).value();
  const TokenText pair = roberta->EncodePair("the cat sat on a mat", "dog ran", 10).value();
  EXPECT_THAT(pair.ids, ElementsAre(2, 4, 5, 7, 10, 3, 3, 6, 8, 3));
  EXPECT_THAT(pair.types, Each(0));
  const TokenText other = roberta->EncodePair("dog ran", "the cat sat on a mat", 10).value();
  EXPECT_THAT(other.ids, ElementsAre(2, 6, 8, 3, 3, 4, 5, 7, 10, 3));
  // When both are cut to an odd number, the longer one has one more.
  EXPECT_THAT(Tiny()->EncodePair("the cat sat on a mat", "dog ran on a mat", 8)->ids,
              ElementsAre(2, 4, 5, 7, 3, 6, 8, 3));
  EXPECT_THAT(Tiny()->EncodePair("dog ran on a mat", "the cat sat on a mat", 8)->ids,
              ElementsAre(2, 6, 8, 3, 4, 5, 7, 3));
  EXPECT_THAT(Tiny()->EncodePair("dog ran", "the cat", 2)->ids, ElementsAre(2, 3));
}

TEST_F(TextTest, ATokenizerThatIsNoneIsNamed) {
  const auto digest = objects_->Put("{}").value();
  EXPECT_THAT(TextEncoder::Load(*objects_, digest),
              Fails(StatusCode::kInvalidArgument, "dataset.tokenizer: "));
  EXPECT_THAT(TextEncoder::Load(*objects_, std::string(64, '0')), Fails(StatusCode::kNotFound, ""));
}

TEST_F(TextTest, PiecesOfATextAreCutBeforeWords) {
  std::string text;
  for (int i = 0; text.size() < 3000; ++i) {
    text += (i % 5 == 0 ? "\n\n  " : " ") + std::string("w") + std::to_string(i * i);
  }
  for (const size_t bytes : {64u, 100u, 1000u, 5000u}) {
    std::string joined;
    const auto pieces = CutText(text, bytes);
    for (size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_LE(pieces[i].size(), bytes);
      joined += pieces[i];
      if (i == 0) continue;
      const bool before_space = pieces[i][0] == ' ' && pieces[i][1] == 'w';
      EXPECT_TRUE(before_space || pieces[i][0] == 'w') << pieces[i].substr(0, 5);
    }
    EXPECT_EQ(joined, text);
  }
  // Without any space, between characters.
  std::string accents;
  for (int i = 0; i < 100; ++i) accents += "\xC3\xA9";
  for (const std::string_view piece : CutText(accents, 33)) EXPECT_EQ(piece.size() % 2, 0u);
}

TEST_F(TextTest, AStreamIsTokenisedOnceAndBytesAreTheTextItself) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += i % 7 == 0 ? "the cats\nsat on " : "a mat ";
  const auto digest = objects_->Put(text).value();
  const auto tiny = Tiny();
  const PrepareProgress progress = [this](std::string_view, uint64_t, uint64_t) { ++told_; };
  const auto stream = TokensOfText(*objects_, digest, *tiny, derived_, progress);
  ASSERT_THAT(stream, IsOk());
  EXPECT_GT(told_, 0);
  const std::vector<uint32_t> whole = tiny->EncodeStream(text).value();
  ASSERT_EQ((*stream)->size(), static_cast<int64_t>(whole.size()));
  std::vector<int32_t> ids(whole.size());
  (*stream)->Read(0, (*stream)->size(), ids.data());
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), whole.begin()));

  told_ = 0;
  ASSERT_THAT(TokensOfText(*objects_, digest, *tiny, derived_, progress), IsOk());
  EXPECT_EQ(told_, 0) << "it is there already";
  const auto bytes = TokensOfText(*objects_, digest, *Bytes(), derived_, progress);
  ASSERT_THAT(bytes, IsOk());
  EXPECT_EQ((*bytes)->size(), static_cast<int64_t>(text.size()));
  (*bytes)->Read(3, 3, ids.data());
  EXPECT_THAT(std::span(ids).first(3), ElementsAre(text[3], text[4], text[5]));
}

TEST_F(TextTest, RowsAreTheirTextsAndMissingOnesAreEmpty) {
  storage::Column text = TextColumn("text", {"the cat", "a good film on the mat", "x"});
  text.codes[2] = -1;
  const auto rows = Rows(text, nullptr, *Tiny(), 6);
  ASSERT_THAT(rows, IsOk());
  EXPECT_THAT((*rows)->ends, ElementsAre(4, 10, 12));
  EXPECT_EQ((*rows)->types, nullptr);
  const storage::Column other = TextColumn("pair", {"dog", "bad", "ran"});
  const auto pairs = Rows(text, &other, *Tiny(), 8);
  ASSERT_THAT(pairs, IsOk());
  int32_t types[6];
  (*pairs)->types->Read(0, 6, types);  // [CLS] the cat [SEP] dog [SEP]
  EXPECT_THAT(types, ElementsAre(0, 0, 0, 0, 1, 1));
}

nn::Signature Encoder() {
  const Shape text{Shape::kBatch, Shape::kSequence};
  return {{{"tokens", {DType::kI32, text}},
           {"mask", {DType::kF32, text}},
           {"token_types", {DType::kI32, text}}},
          3};
}

TEST_F(TextTest, AMicroBatchIsAsLongAsItsLongestTextInFewLengths) {
  std::vector<std::string> texts;
  for (int i = 1; i <= 40; ++i) texts.emplace_back(i * 3, static_cast<char>('a' + i % 26));
  const auto rows = Rows(TextColumn("text", texts), nullptr, *Bytes(), 100).value();
  std::vector<int64_t> numbers(40);
  std::iota(numbers.begin(), numbers.end(), 0);
  TextRows examples(rows, numbers, 100, /*next_token=*/false);
  examples.SetLabels(std::vector<int32_t>(40, 1), {});
  BatchBuffer buffer(Encoder());
  const int64_t some[] = {3, 20};  // 12 and 63 bytes
  ASSERT_THAT(examples.Fill(0, some, buffer), IsOk());
  EXPECT_EQ(buffer.sequence(), 64);
  const nn::Batch batch = buffer.batch();
  const auto tokens = batch.inputs[0].span<const int32_t>();
  const auto mask = batch.inputs[1].span<const float>();
  EXPECT_THAT(tokens.subspan(0, 12), Each('a' + 4));
  EXPECT_THAT(tokens.subspan(12, 52), Each(0));
  EXPECT_THAT(mask.subspan(0, 12), Each(0));
  EXPECT_THAT(mask.subspan(12, 52), Each(-1e9f));
  EXPECT_EQ(tokens[64 + 62], 'a' + 21);
  EXPECT_THAT(buffer.classes, ElementsAre(1, 1));
  const int64_t longest[] = {39};
  ASSERT_THAT(examples.Fill(0, longest, buffer), IsOk());
  EXPECT_EQ(buffer.sequence(), 100) << "cut at the context";
}

TEST_F(TextTest, TheLengthsOfBatchesAreFew) {
  std::vector<int64_t> lengths;
  for (int64_t length = 0; length <= 1000; ++length) {
    const int64_t padded = PaddedLength(length, 1000);
    EXPECT_GE(padded, length);
    EXPECT_LE(padded, std::max<int64_t>(16 + length, length * 5 / 4));
    if (lengths.empty() || lengths.back() != padded) lengths.push_back(padded);
  }
  EXPECT_THAT(lengths, ElementsAre(16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
                                   448, 512, 640, 768, 896, 1000));
}

TEST_F(TextTest, TextsOfOneLengthGoTogether) {
  std::vector<std::string> texts(40, std::string(200, 'x'));
  for (int i = 0; i < 20; ++i) texts[2 * i] = "short";
  texts[7] = std::string(180, 'x');  // alone, and padded to 192 as easily to 224
  const auto rows = Rows(TextColumn("text", texts), nullptr, *Bytes(), 300).value();
  std::vector<int64_t> numbers(40);
  std::iota(numbers.begin(), numbers.end(), 0);
  const TextRows examples(rows, numbers, 300, /*next_token=*/false);
  const auto groups = GroupsByLength(examples, numbers);
  ASSERT_EQ(groups.size(), 2u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(groups[0][i], 2 * i);
  EXPECT_EQ(groups[1].size(), 20u);
  EXPECT_EQ(groups[1][0], 7);
  const TableExamples table({0, 1, 2}, {0, 0, 0}, 1);
  EXPECT_THAT(GroupsByLength(table, std::vector<int64_t>{2, 0, 1}),
              ElementsAre(ElementsAre(2, 0, 1)));
}

TEST_F(TextTest, BytesLeaveAsATokenizerThatDoesTheSame) {
  const auto bytes = Bytes();
  const auto json = TextEncoder::Load(*objects_, objects_->Put(BytesAsTokenizerJson()).value());
  ASSERT_THAT(json, IsOk());
  EXPECT_FALSE((*json)->bytes());
  EXPECT_EQ((*json)->vocabulary(), 256);
  std::string all;
  for (int i = 1; i < 128; ++i) all += static_cast<char>(i);
  for (const std::string& text : {all, std::string("a b  c\n\td"),
                                  std::string("\u00e9\u4f60\u00ad\U0001F600"), std::string()}) {
    EXPECT_EQ((*json)->EncodeStream(text).value(), bytes->EncodeStream(text).value());
    EXPECT_EQ((*json)->EncodeText(text, 40)->ids, bytes->EncodeText(text, 40)->ids);
    EXPECT_EQ((*json)->Decode(bytes->EncodeStream(text).value()).value(), text);
  }
  const TokenText ours = bytes->EncodePair("ab", "c", 16).value();
  const TokenText theirs = (*json)->EncodePair("ab", "c", 16).value();
  EXPECT_EQ(theirs.ids, ours.ids);
  EXPECT_EQ(theirs.types, ours.types);
}

TEST_F(TextTest, LanguageModelsLearnTextsTokenByToken) {
  const auto rows =
      Rows(TextColumn("text", {"abc", "", "abcdefghijklmnopqrstuvwxyz"}), nullptr, *Bytes(), 20)
          .value();
  const TextRows examples(rows, {0, 1, 2}, 20, /*next_token=*/true);
  EXPECT_EQ(examples.predictions(), 20);
  nn::Signature signature = {
      {{"tokens", {DType::kI32, {Shape::kBatch, Shape::kSequence}}}}, 256, true};
  BatchBuffer buffer(signature);
  const int64_t all[] = {0, 1, 2};
  ASSERT_THAT(examples.Fill(0, all, buffer), IsOk());
  ASSERT_EQ(buffer.sequence(), 20);
  const std::span<const int32_t> targets(buffer.classes);
  EXPECT_THAT(targets.subspan(0, 3), ElementsAre('b', 'c', nn::kNoTarget));
  EXPECT_THAT(targets.subspan(3, 37), Each(nn::kNoTarget));
  EXPECT_EQ(targets[40 + 18], 't');
  EXPECT_EQ(targets[40 + 19], nn::kNoTarget);
}

}  // namespace
}  // namespace lepton::worker
