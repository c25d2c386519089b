#include "runtime/wire/valid_text.h"

#include <gtest/gtest.h>

#include "runtime/wire/messages.pb.h"

namespace lepton::wire {
namespace {

TEST(ValidText, ReplacesWhatIsNotUtf8InEveryString) {
  TaskReport report;
  report.set_task_id("t\xc3");
  report.mutable_log()->add_lines("good \xc3\xa9");
  report.mutable_log()->add_lines("bad \xff");
  TaskReport progress;
  (*progress.mutable_progress()->mutable_metrics())["loss\xe2\x82"] = 1;
  for (TaskReport* message : {&report, &progress}) {
    TaskReport back;
    ASSERT_FALSE(back.ParseFromString(message->SerializeAsString()));
    MakeTextValid(*message);
    ASSERT_TRUE(back.ParseFromString(message->SerializeAsString()));
  }
  EXPECT_EQ(report.task_id(), "t\uFFFD");
  EXPECT_EQ(report.log().lines(0), "good \u00e9");
  EXPECT_EQ(report.log().lines(1), "bad \uFFFD");
  EXPECT_EQ(progress.progress().metrics().count("loss\uFFFD"), 1u);
}

TEST(ValidText, LeavesBytesAlone) {
  Hello hello;
  hello.set_host("h");
  (*hello.mutable_labels())["zone"] = "a\xff";
  const std::string before = hello.host();
  MakeTextValid(hello);
  EXPECT_EQ(hello.host(), before);
  EXPECT_EQ(hello.labels().at("zone"), "a\uFFFD");
}

}  // namespace
}  // namespace lepton::wire
