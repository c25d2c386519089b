#include "worker/log_lines.h"

#include <gtest/gtest.h>

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using Lines = std::vector<std::string>;
const MonotonicTime kStart{std::chrono::hours(1)};

TEST(LogLinesTest, StreamsAreCutAtLineEndsEachOnItsOwn) {
  LogLines log;
  log.Append(0, "one\ntw", kStart);
  log.Append(1, "err", kStart);
  log.Append(0, "o\r\n\n", kStart);
  log.Append(1, "or\n", kStart);
  EXPECT_EQ(log.Take(kStart), (Lines{"one", "two", "", "error"}));
  EXPECT_FALSE(log.HasLines());
}

TEST(LogLinesTest, AnUnfinishedLastLineCounts) {
  LogLines log;
  log.Append(0, "no end", kStart);
  EXPECT_FALSE(log.HasLines());
  log.Finish(0, kStart);
  EXPECT_EQ(log.Take(kStart), (Lines{"no end"}));
}

TEST(LogLinesTest, ALongLineIsCutOnce) {
  LogLines log;
  for (int i = 0; i < 5; ++i) log.Append(0, std::string(3000, 'x'), kStart);
  log.Append(0, "\nnext\n", kStart);
  const Lines lines = log.Take(kStart);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], std::string(kMaxLineBytes, 'x') + " [cut]");
  EXPECT_EQ(lines[1], "next");
}

TEST(LogLinesTest, TooManyLinesASecondBecomeANote) {
  LogLines log(/*lines_per_second=*/3);
  for (int i = 0; i < 10; ++i) log.Append(0, "x\n", kStart + milliseconds(i));
  EXPECT_EQ(log.Take(kStart + milliseconds(20)).size(), 3u);
  EXPECT_TRUE(log.HasLines());
  log.Append(0, "later\n", kStart + milliseconds(1500));
  EXPECT_EQ(log.Take(kStart + milliseconds(1500)),
            (Lines{"[7 lines dropped: more than 3 a second]", "later"}));
}

TEST(LogLinesTest, TheLastNoteIsNotLost) {
  LogLines log(/*lines_per_second=*/1);
  log.Append(0, "a\nb\nc\n", kStart);
  EXPECT_EQ(log.Take(kStart, /*last=*/true),
            (Lines{"a", "[2 lines dropped: more than 1 a second]"}));
}

TEST(LogLinesTest, InvalidUtf8IsReplaced) {
  const std::pair<std::string, std::string> cases[] = {
      {"plain", "plain"},
      {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"a\xff z", "a? z"},
      {"\xc3", "?"},
      {"\xc0\xaf", "??"},            // overlong
      {"\xed\xa0\x80", "???"},       // surrogate
      {"\xf4\x90\x80\x80", "????"},  // beyond U+10FFFF
      {"\xe2\x82", "??"},            // cut
      {std::string("a\0b", 3), "a?b"},
  };
  for (const auto& [in, out] : cases) EXPECT_EQ(ToValidUtf8(in), out);
}

}  // namespace
}  // namespace lepton::worker
