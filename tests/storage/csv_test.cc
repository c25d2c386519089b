#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "storage/datasets/table.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

// All cells as text, column by column, after "name:type".
std::vector<std::vector<std::string>> Shown(const Table& table) {
  std::vector<std::vector<std::string>> out;
  for (const Column& c : table.columns) {
    out.push_back({c.name + ":" + std::string(ColumnTypeName(c.type))});
    for (int64_t row = 0; row < table.rows; ++row) {
      out.back().push_back(c.Missing(row) ? "-" : c.CellText(row));
    }
  }
  return out;
}

struct GoodCase {
  const char* name;
  std::string csv;
  std::vector<std::vector<std::string>> columns;
};

class GoodCsvTest : public testing::TestWithParam<GoodCase> {};

TEST_P(GoodCsvTest, Reads) {
  const auto table = ReadCsv(GetParam().csv);
  ASSERT_THAT(table, IsOk());
  EXPECT_EQ(Shown(*table), GetParam().columns);
}

INSTANTIATE_TEST_SUITE_P(
    Csv, GoodCsvTest,
    testing::ValuesIn(std::vector<GoodCase>{
        {"Plain", "a,b\n1,2.5\n3,4\n", {{"a:integer", "1", "3"}, {"b:real", "2.5", "4"}}},
        {"NoFinalNewline", "a\n1\n2", {{"a:integer", "1", "2"}}},
        {"Crlf", "a,b\r\n1,x\r\n2,y\r\n", {{"a:integer", "1", "2"}, {"b:text", "x", "y"}}},
        {"ByteOrderMark",
         "\xEF\xBB\xBF"
         "a\n1\n",
         {{"a:integer", "1"}}},
        {"QuotedByteOrderMark", "\xEF\xBB\xBF\"a\"\n1\n", {{"a:integer", "1"}}},
        {"QuotedFields",
         "\"a\",\"b,c\"\n\"1\",\"x,y\"\n",
         {{"a:integer", "1"}, {"b,c:text", "x,y"}}},
        {"DoubledQuotes", "a\n\"say \"\"hi\"\"\"\n\"\"\"\"\n", {{"a:text", "say \"hi\"", "\""}}},
        {"NewlinesInQuotes", "a,b\n\"x\ny\r\n\",1\n", {{"a:text", "x\ny\r\n"}, {"b:integer", "1"}}},
        {"MissingCells",
         "i,r,t\n1,NA,x\n,2.5,?\nnull,NaN,\n4,nan,y\n",
         {{"i:integer", "1", "-", "-", "4"},
          {"r:real", "-", "2.5", "-", "-"},
          {"t:text", "x", "-", "-", "y"}}},
        {"AllMissingIsReal", "a,b\n,1\n,2\n", {{"a:real", "-", "-"}, {"b:integer", "1", "2"}}},
        {"QuotedEmptyIsMissing", "a,b\n\"\",1\n", {{"a:real", "-"}, {"b:integer", "1"}}},
        {"BlankLinesAreSkipped",
         "a,b\n\n1,2\n\n\n3,4\n\n",
         {{"a:integer", "1", "3"}, {"b:integer", "2", "4"}}},
        {"BlankLinesOfOneColumnAreMissing", "a\n1\n\n2\n", {{"a:integer", "1", "-", "2"}}},
        {"SpacesAroundNumbersAndNames",
         " a , b\n 1 ,\t2.5 \n",
         {{"a:integer", "1"}, {"b:real", "2.5"}}},
        {"SpacesInTextsCount", "a\n x\nx\n", {{"a:text", " x", "x"}}},
        {"TextAfterNumbersKeepsTheNumbersText",
         "a\n007\n\n1.50\nx\n",
         {{"a:text", "007", "-", "1.50", "x"}}},
        {"NumberForms",
         "a\n+1\n-2\n1e3\n.5\n5.\n-0\n",
         {{"a:real", "1", "-2", "1000", "0.5", "5", "0"}}},
        {"IntegersBeyondDoublesAreReal",
         "a\n9007199254740993\n1\n",
         {{"a:real", "9007199254740992", "1"}}},
        {"InfinityIsText", "a\n1\ninf\n", {{"a:text", "1", "inf"}}},
        {"HexIsText", "a\n0x10\n", {{"a:text", "0x10"}}},
        {"TwoSignsAreText", "a\n+-1\n", {{"a:text", "+-1"}}},
        {"Unicode",
         "\u00fc,b\n\u4e16\u754c,\U0001F600\n",
         {{"\u00fc:text", "\u4e16\u754c"}, {"b:text", "\U0001F600"}}},
        {"LastFieldEmpty", "a,b\n1,\n", {{"a:integer", "1"}, {"b:real", "-"}}},
    }),
    [](const auto& info) { return info.param.name; });

struct BadCase {
  const char* name;
  std::string csv, message;
};

class BadCsvTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadCsvTest, IsRefusedNamingTheLine) {
  EXPECT_THAT(ReadCsv(GetParam().csv), Fails(StatusCode::kInvalidArgument, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Csv, BadCsvTest,
    testing::ValuesIn(std::vector<BadCase>{
        {"Empty", "", "the file is empty"},
        {"OnlyAByteOrderMark", "\xEF\xBB\xBF", "the file is empty"},
        {"OnlyAHeader", "a,b\n", "no rows"},
        {"OnlyBlankLines", "a,b\n\n\n", "no rows"},
        {"TooFewFields", "a,b,c\n1,2,3\n4,5\n", "line 3: 2 fields, but the header has 3"},
        {"TooManyFields", "a,b\n1,2\n3,4\n5,6,7\n", "line 4: 3 fields, but the header has 2"},
        {"LinesInQuotesCount", "a,b\n\"x\n\n\",1\n2\n", "line 5: 1 fields, but the header has 2"},
        {"UnclosedQuote", "a,b\n1,2\n3,\"x\n4,5\n6,7\n", "line 3: a quote that is opened here"},
        {"UnclosedQuoteAfterDoubled", "a\n\"x\"\"\n", "line 2: a quote that is opened here"},
        {"QuoteInsideAField", "a\nx\"y\n", "line 2: a quote inside an unquoted field"},
        {"TextAfterAQuote", "a\n\"x\"y\n", "line 2: text after a closing quote"},
        {"BareCarriageReturn", "a\rb\n", "line 1: a carriage return"},
        {"NoColumnName", "a,,c\n1,2,3\n", "line 1: column 2 has no name"},
        {"DuplicateName", "a,b, a\n1,2,3\n", "line 1: column 3 repeats the name \"a\" of column 1"},
        {"Latin1", "a\nok\ncaf\xe9\n", "line 3: bytes that are not UTF-8"},
        {"Overlong", "a\n\xc0\xaf\n", "line 2: bytes that are not UTF-8"},
        {"Surrogate", "a\n\xed\xa0\x80\n", "line 2: bytes that are not UTF-8"},
        {"CutSequence", "a\n\xe4\xb8", "line 2: bytes that are not UTF-8"},
        {"ZeroByte", std::string("a\n1\n\0\n", 6), "line 3: a zero byte: is this UTF-16?"},
        {"Utf16",
         std::string("\xff\xfe"
                     "a\0\n\0",
                     6),
         "line 1: bytes that are not UTF-8"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(CsvTest, LimitsNameTheLine) {
  CsvOptions options;
  options.max_rows = 2;
  EXPECT_THAT(ReadCsv("a\n1\n2\n", options), IsOk());
  EXPECT_THAT(ReadCsv("a\n1\n2\n3\n", options),
              Fails(StatusCode::kInvalidArgument, "line 4: more than 2 rows"));
  options = {};
  options.max_columns = 2;
  EXPECT_THAT(ReadCsv("a,b,c\n", options), Fails(StatusCode::kInvalidArgument, "line 1"));
  const std::string huge(2 << 20, 'x');
  EXPECT_THAT(ReadCsv("a\n1\n" + huge + "\n"),
              Fails(StatusCode::kInvalidArgument, "line 3: field 1 has 2097152 bytes"));
  EXPECT_THAT(ReadCsv("a\n1\n\"" + huge + "\"\n"), Fails(StatusCode::kInvalidArgument, "line 3"));
}

TEST(CsvTest, AnotherDelimiter) {
  CsvOptions options;
  options.delimiter = ';';
  EXPECT_EQ(Shown(ReadCsv("a;b\n1,5;2\n", options).value()),
            (std::vector<std::vector<std::string>>{{"a:text", "1,5"}, {"b:integer", "2"}}));
}

// What any table's cells are when written by the rules of RFC 4180 comes back.
TEST(CsvTest, RandomTextsComeBack) {
  std::mt19937 random(1);
  const char* const pieces[] = {"a", ",", "\"", "\n", "\r\n", " ", "\u00fc", "1", "x,y"};
  for (int round = 0; round < 300; ++round) {
    const size_t rows = 1 + random() % 6, columns = 2 + random() % 3;
    std::vector<std::vector<std::string>> cells(columns);
    std::string csv;
    for (size_t c = 0; c < columns; ++c) csv += (c ? ",c" : "c") + std::to_string(c);
    for (size_t r = 0; r < rows; ++r) {
      csv += random() % 2 ? "\n" : "\r\n";
      for (size_t c = 0; c < columns; ++c) {
        std::string text = "t";  // never a number nor missing
        for (auto n = random() % 5; n > 0; --n) text += pieces[random() % std::size(pieces)];
        cells[c].push_back(text);
        std::string quoted = text;
        for (size_t at = 0; (at = quoted.find('"', at)) != quoted.npos; at += 2) {
          quoted.insert(at, 1, '"');
        }
        const bool plain = text.find_first_of(",\"\r\n") == text.npos;
        csv += (c ? "," : "") + (plain ? text : "\"" + quoted + "\"");
      }
    }
    const auto table = ReadCsv(csv);
    ASSERT_THAT(table, IsOk()) << csv;
    ASSERT_EQ(table->rows, static_cast<int64_t>(rows));
    for (size_t c = 0; c < columns; ++c) {
      for (size_t r = 0; r < rows; ++r) {
        ASSERT_EQ(table->columns[c].CellText(static_cast<int64_t>(r)), cells[c][r]) << csv;
      }
    }
  }
}

TEST(CsvTest, RandomBytesNeverCrash) {
  std::mt19937 random(2);
  constexpr char kAlphabet[] = "a1,\"\n\r ?.-\xc3\xbc";
  for (int round = 0; round < 5000; ++round) {
    std::string csv(random() % 40, ' ');
    for (char& c : csv) c = kAlphabet[random() % (sizeof(kAlphabet) - 1)];
    const auto table = ReadCsv(csv);
    if (!table.ok()) {
      ASSERT_EQ(table.status().code(), StatusCode::kInvalidArgument);
      continue;
    }
    for (const Column& c : table->columns) {
      const auto cells = c.type == ColumnType::kText ? c.codes.size() : c.values.size();
      ASSERT_EQ(cells, static_cast<size_t>(table->rows)) << csv;
    }
  }
}

}  // namespace
}  // namespace lepton::storage
