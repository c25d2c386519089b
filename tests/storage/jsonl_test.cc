#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "storage/datasets/table.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

using testing::ElementsAre;

std::vector<std::string> Cells(const Column& column) {
  std::vector<std::string> cells;
  for (int64_t row = 0;
       row < static_cast<int64_t>(column.type == ColumnType::kText ? column.codes.size()
                                                                   : column.values.size());
       ++row) {
    cells.push_back(column.CellText(row));
  }
  return cells;
}

TEST(JsonlTest, AColumnAKeyInTheOrderOfFirstAppearance) {
  const auto table = ReadJsonl(
      "{\"a\": 1, \"text\": \"one, \\\"two\\\"\\n\", \"ok\": true}\r\n"
      "\n"
      "{\"text\": \"\", \"b\": 0.5, \"a\": null, \"ok\": false}\n"
      "{\"a\": 3}");
  ASSERT_THAT(table, IsOk());
  ASSERT_EQ(table->rows, 3);
  ASSERT_EQ(table->columns.size(), 4u);
  EXPECT_EQ(table->columns[0].name, "a");
  EXPECT_EQ(table->columns[0].type, ColumnType::kInteger);
  EXPECT_THAT(Cells(table->columns[0]), ElementsAre("1", "", "3"));
  EXPECT_EQ(table->columns[1].type, ColumnType::kText);
  EXPECT_THAT(Cells(table->columns[1]), ElementsAre("one, \"two\"\n", "", ""));
  EXPECT_FALSE(table->columns[1].Missing(1)) << "an empty text is a text";
  EXPECT_TRUE(table->columns[1].Missing(2));
  EXPECT_THAT(Cells(table->columns[2]), ElementsAre("1", "0", ""));
  EXPECT_EQ(table->columns[3].name, "b");
  EXPECT_THAT(Cells(table->columns[3]), ElementsAre("", "0.5", ""));
}

TEST(JsonlTest, NumbersAndTextsInOneColumnAreTexts) {
  const auto table = ReadJsonl("{\"z\":0,\"a\":1}\n{\"a\":2.5}\n{\"a\":\"x\"}\n{\"a\":\"1\"}\n");
  ASSERT_THAT(table, IsOk());
  EXPECT_THAT(Cells(*table->Find("a")), ElementsAre("1", "2.5", "x", "1"));
  EXPECT_EQ(table->Find("a")->codes[0], table->Find("a")->codes[3]);
  EXPECT_EQ(table->Find("z")->type, ColumnType::kInteger);
  EXPECT_THAT(Cells(*table->Find("z")), ElementsAre("0", "", "", ""));
}

TEST(JsonlTest, AmongTextsIntegersKeepAllTheirDigits) {
  const auto table = ReadJsonl(
      "{\"id\":9007199254740993}\n{\"id\":\"a\"}\n{\"id\":-1234567890123456789}\n"
      "{\"id\":18446744073709551615}\n{\"id\":123456789012345678901234}\n{\"id\":1e3}\n");
  ASSERT_THAT(table, IsOk());
  EXPECT_THAT(Cells(*table->Find("id")),
              ElementsAre("9007199254740993", "a", "-1234567890123456789", "18446744073709551615",
                          "123456789012345678901234", "1000"));
}

TEST(JsonlTest, ATextThatLooksLikeANumberOrAMissingMarkIsAText) {
  const auto table = ReadJsonl("{\"a\":\"7\"}\n{\"a\":\"NA\"}\n");
  ASSERT_THAT(table, IsOk());
  EXPECT_EQ(table->columns[0].type, ColumnType::kText);
  EXPECT_THAT(Cells(table->columns[0]), ElementsAre("7", "NA"));
}

TEST(JsonlTest, IntegersThatDoublesCannotHoldMakeAColumnOfReals) {
  const auto table = ReadJsonl("{\"a\":9007199254740993}\n{\"a\":1}\n");
  ASSERT_THAT(table, IsOk());
  EXPECT_EQ(table->columns[0].type, ColumnType::kReal);
}

// As data sets of chats have them, and requests to services.
TEST(JsonlTest, AChatsMessagesAreTheTextOfTheirJson) {
  const auto table = ReadJsonl(
      "{\"id\":1,\"messages\":[{\"role\":\"user\",\"content\":\"a \\\"b\\\"\"}, {\"role\":\"x\", "
      "\"n\":[1,2.5,null,{}]}],\"k\":2}\n"
      "{\"id\":2,\"body\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}}\n");
  ASSERT_THAT(table, IsOk());
  EXPECT_THAT(
      Cells(*table->Find("messages")),
      ElementsAre("[{\"role\":\"user\",\"content\":\"a \\\"b\\\"\"},{\"role\":\"x\",\"n\":[1,2.5,"
                  "null,{}]}]",
                  ""));
  EXPECT_THAT(Cells(*table->Find("body")),
              ElementsAre("", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}"));
  EXPECT_THAT(Cells(*table->Find("k")), ElementsAre("2", ""));
}

TEST(JsonlTest, ErrorsNameTheLineAndTheKey) {
  const auto error = [](const char* text) { return ReadJsonl(text); };
  const auto code = StatusCode::kInvalidArgument;
  EXPECT_THAT(error("{\"a\":1}\n{\"b\":{\"c\":1}}\n"), Fails(code, "line 2: \"b\" is an object"));
  EXPECT_THAT(error("{\"a\":1}\n\n{\"tags\":[1]}\n"), Fails(code, "line 3: \"tags\" is a list"));
  EXPECT_THAT(error("{\"a\":[{\"b\":1}]}\n"), Fails(code, "line 1: \"a\" is a list"));
  EXPECT_THAT(error("{\"a\":[]}\n"), Fails(code, "line 1: \"a\" is a list"));
  EXPECT_THAT(error("{\"a\":[{\"role\":\"\\u0000\"}]}\n"),
              Fails(code, "\"a\" has a zero character"));
  EXPECT_THAT(error("{\"a\":[[[[1],{\"b\":[[[[2]"), Fails(code, "line 1: not JSON"));
  EXPECT_THAT(error(("{\"a\":" + std::string(1000, '[') + "\n").c_str()),
              Fails(code, "line 1: \"a\" has too many values"));
  std::string many = "{\"a\":[{\"role\":[1";
  for (int i = 0; i < 100'000; ++i) many += ",1";
  EXPECT_THAT(error((many + "]}]}\n").c_str()), Fails(code, "line 1: \"a\" has too many values"));
  EXPECT_THAT(error("{\"a\":1,\"a\":2}\n"), Fails(code, "line 1: the key \"a\" comes twice"));
  EXPECT_THAT(error("[1,2]\n"), Fails(code, "line 1: a list; each line must be an object"));
  EXPECT_THAT(error("3\n"), Fails(code, "line 1: a bare value"));
  EXPECT_THAT(error("{\"a\":1}\n{\"a\":}\n"), Fails(code, "line 2: not JSON: see character 6"));
  EXPECT_THAT(error("{\"a\":1} {\"a\":2}\n"), Fails(code, "line 1: not JSON"));
  EXPECT_THAT(error("{\"a\":\"\xC3\x28\"}\n"), Fails(code, "line 1: bytes that are not UTF-8"));
  EXPECT_THAT(error("{\"\":1}\n"), Fails(code, "line 1: a key is empty"));
  EXPECT_THAT(error("{\"a\":\"\\u0000\"}\n"), Fails(code, "line 1: \"a\" has a zero character"));
  EXPECT_THAT(error("\n \n"), Fails(code, "the file is empty"));
  EXPECT_THAT(error("{}\n"), Fails(code, "no keys"));
}

// A few bytes would become many cells: each line has one of each key.
TEST(JsonlTest, CellsThatNoLineHoldsAreBounded) {
  std::string wide = "{";
  for (int key = 0; key < 1000; ++key)
    wide += (key > 0 ? ",\"" : "\"") + std::to_string(key) + "\":0";
  wide += "}\n";
  std::string empty;
  for (int line = 0; line < 1000; ++line) empty += "{}\n";
  const auto size = static_cast<int64_t>(wide.size() + empty.size());
  const CsvOptions tight{.spare_cells = 50'000};
  const int64_t cells = tight.spare_cells + 4 * size;
  const std::string row = std::to_string(cells / 1000 + 1), key = std::to_string(cells / 1001 + 1);
  EXPECT_THAT(ReadJsonl(wide + empty, tight),
              Fails(StatusCode::kInvalidArgument,
                    "line " + row + ": " + row + " rows of 1000 keys are too many"));
  // The other way around it is the keys that come last.
  EXPECT_THAT(
      ReadJsonl(empty + wide, tight),
      Fails(StatusCode::kInvalidArgument, "line 1001: 1001 rows of " + key + " keys are too many"));
  EXPECT_THAT(ReadJsonl(wide + empty), IsOk());
}

TEST(JsonlTest, LimitsHold) {
  const std::string rows = "{\"a\":1}\n{\"a\":2}\n{\"b\":\"long\"}\n";
  EXPECT_THAT(ReadJsonl(rows, {.max_rows = 2}),
              Fails(StatusCode::kInvalidArgument, "line 3: more than 2 rows"));
  EXPECT_THAT(ReadJsonl(rows, {.max_columns = 1}),
              Fails(StatusCode::kInvalidArgument, "line 3: more than 1 keys"));
  EXPECT_THAT(ReadJsonl(rows, {.max_field_bytes = 3}),
              Fails(StatusCode::kInvalidArgument, "line 3: \"b\" has 4 bytes"));
}

}  // namespace
}  // namespace lepton::storage
