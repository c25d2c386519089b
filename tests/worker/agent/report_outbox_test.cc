#include "worker/report_outbox.h"

#include <gtest/gtest.h>

namespace lepton::worker {
namespace {

wire::TaskReport Started() {
  wire::TaskReport report;
  report.mutable_started()->set_pid(1);
  return report;
}
wire::TaskReport Progress(uint64_t step, const std::string& metric = "") {
  wire::TaskReport report;
  report.mutable_progress()->set_step(step);
  if (!metric.empty()) (*report.mutable_progress()->mutable_metrics())[metric] = double(step);
  return report;
}
wire::TaskReport Log(const std::string& line) {
  wire::TaskReport report;
  report.mutable_log()->add_lines(line);
  return report;
}
wire::TaskReport Checkpoint(uint64_t step) {
  wire::TaskReport report;
  report.mutable_checkpoint()->set_step(step);
  return report;
}
wire::TaskReport Finished() {
  wire::TaskReport report;
  report.mutable_finished()->set_code("OK");
  return report;
}

std::vector<wire::TaskReport> Take(ReportOutbox& outbox) {
  std::vector<wire::TaskReport> taken;
  outbox.TakeSendable([&](const wire::TaskReport& report) {
    taken.push_back(report);
    return true;
  });
  return taken;
}
std::vector<uint64_t> Seqs(const std::vector<wire::TaskReport>& reports) {
  std::vector<uint64_t> seqs;
  for (const auto& report : reports) seqs.push_back(report.seq());
  return seqs;
}
using Numbers = std::vector<uint64_t>;

TEST(ReportOutboxTest, EachReportIsSentOnceInOrder) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  outbox.Add("t", Log("a"));
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{1, 2}));
  EXPECT_TRUE(Take(outbox).empty());
  outbox.Add("t", Finished());
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{3}));
}

TEST(ReportOutboxTest, WhatIsNotTakenIsNotSentAndComesAgainInOrder) {
  ReportOutbox outbox;
  for (const char* task : {"t", "u"}) {
    outbox.Add(task, Log("a"));
    outbox.Add(task, Finished());
  }
  int offers = 0;
  outbox.TakeSendable([&](const wire::TaskReport&) { return ++offers < 2; });
  EXPECT_EQ(offers, 2) << "behind it there is no place either";
  outbox.Ack("t", 1);
  const auto rest = Take(outbox);
  ASSERT_EQ(Seqs(rest), (Numbers{2, 1, 2}));
  EXPECT_TRUE(rest[0].has_finished());
  EXPECT_TRUE(Take(outbox).empty());
}

TEST(ReportOutboxTest, UnacknowledgedReportsAreSentAgainWithTheirNumbers) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  outbox.Add("t", Log("a"));
  outbox.Add("t", Log("b"));
  Take(outbox);
  outbox.Ack("t", 1);
  outbox.Replay();
  outbox.Add("t", Finished());
  const auto again = Take(outbox);
  EXPECT_EQ(Seqs(again), (Numbers{2, 3, 4}));
  EXPECT_EQ(again[0].log().lines(0), "a");
}

TEST(ReportOutboxTest, ATaskIsForgottenWhenItsFinishIsAcknowledged) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  outbox.Add("t", Finished());
  Take(outbox);
  outbox.Ack("t", 1);
  EXPECT_TRUE(outbox.Has("t"));
  ASSERT_EQ(outbox.Tasks().size(), 1u);
  EXPECT_EQ(outbox.Tasks()[0].last_seq(), 2u);
  outbox.Ack("t", 2);
  EXPECT_TRUE(outbox.empty());
  outbox.Ack("t", 2);
}

TEST(ReportOutboxTest, ATaskWithoutUnacknowledgedReportsKeepsItsNumbers) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  Take(outbox);
  outbox.Ack("t", 1);
  ASSERT_EQ(outbox.Tasks().size(), 1u);
  EXPECT_EQ(outbox.Tasks()[0].last_seq(), 1u);
  outbox.Add("t", Log("next"));
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{2}));
}

TEST(ReportOutboxTest, AHeldReportHoldsBackTheLaterOnesOfItsTaskOnly) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  const uint64_t name = outbox.Add("t", Checkpoint(5), /*held=*/true);
  outbox.Add("t", Finished());
  outbox.Add("u", Started());
  EXPECT_EQ(Take(outbox).size(), 2u);
  outbox.Release("t", name, Log("no space"));
  const auto rest = Take(outbox);
  ASSERT_EQ(Seqs(rest), (Numbers{2, 3}));
  EXPECT_EQ(rest[0].log().lines(0), "no space");
  EXPECT_EQ(rest[0].task_id(), "t");
  EXPECT_TRUE(rest[1].has_finished());
}

// An upload may take minutes; meanwhile the gang loses a rank, and people look at it.
TEST(ReportOutboxTest, WhatSaysHowItGoesOvertakesAnUpload) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  const uint64_t first = outbox.Add("t", Checkpoint(5), /*held=*/true);
  outbox.Add("t", Progress(6));
  outbox.Add("t", Progress(7));
  wire::TaskReport endpoint;
  endpoint.mutable_endpoint()->set_left_epoch(3);
  outbox.Add("t", endpoint);
  const uint64_t second = outbox.Add("t", Checkpoint(8), /*held=*/true);
  outbox.Add("t", Progress(9));
  EXPECT_TRUE(outbox.Holds("t"));
  EXPECT_FALSE(outbox.Holds("another"));
  wire::TaskReport gone;
  gone.mutable_gone()->set_signal(9);
  outbox.Add("t", gone);
  outbox.Add("t", Finished());
  auto taken = Take(outbox);
  ASSERT_EQ(Seqs(taken), (Numbers{1, 2, 3, 4, 5}));
  EXPECT_TRUE(taken[4].has_gone());
  EXPECT_EQ(taken[1].progress().step(), 7u);
  EXPECT_EQ(taken[2].endpoint().left_epoch(), 3u);
  EXPECT_EQ(taken[3].progress().step(), 9u);
  // Checkpoints keep their order, and the end comes last.
  outbox.Release("t", second, Checkpoint(8));
  EXPECT_TRUE(Take(outbox).empty());
  // A new connection hears the same, in the order of the numbers.
  outbox.Ack("t", 2);
  outbox.Replay();
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{3, 4, 5}));
  outbox.Release("t", first, Checkpoint(5));
  taken = Take(outbox);
  ASSERT_EQ(Seqs(taken), (Numbers{6, 7, 8}));
  EXPECT_EQ(taken[0].checkpoint().step(), 5u);
  EXPECT_EQ(taken[1].checkpoint().step(), 8u);
  EXPECT_TRUE(taken[2].has_finished());
  outbox.Ack("t", 8);
  EXPECT_TRUE(outbox.empty());
}

// Also while some are behind it.
TEST(ReportOutboxTest, LogsThatAreDroppedBesideAnUploadLeaveTheOrderAsItIs) {
  ReportOutbox outbox(/*window=*/1, /*log_bytes=*/20);
  outbox.Add("t", Started());
  const uint64_t name = outbox.Add("t", Checkpoint(5), /*held=*/true);
  for (int i = 0; i < 10; ++i) outbox.Add("t", Log("line " + std::to_string(i)));
  outbox.Add("t", Finished());
  outbox.Release("t", name, Checkpoint(5));
  std::vector<std::string> seen;
  for (uint64_t seq = 0; outbox.Has("t") && seq < 20; ++seq) {
    outbox.Ack("t", seq);
    for (const auto& report : Take(outbox)) {
      seen.push_back(report.has_log()          ? report.log().lines(report.log().lines_size() - 1)
                     : report.has_checkpoint() ? "checkpoint"
                     : report.has_finished()   ? "finished"
                                               : "started");
    }
  }
  ASSERT_GE(seen.size(), 4u);
  EXPECT_EQ(seen.front(), "started");
  EXPECT_EQ(seen[seen.size() - 3], "line 9");
  EXPECT_EQ(seen[seen.size() - 2], "checkpoint");
  EXPECT_EQ(seen.back(), "finished");
}

TEST(ReportOutboxTest, TheWindowBoundsWhatIsUnderWay) {
  ReportOutbox outbox(/*window=*/2);
  for (int i = 0; i < 5; ++i) outbox.Add("t", Log(std::to_string(i)));
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{1, 2}));
  outbox.Ack("t", 1);
  EXPECT_EQ(Seqs(Take(outbox)), (Numbers{3}));
}

TEST(ReportOutboxTest, WaitingProgressIsThinnedOutToTheNewest) {
  ReportOutbox outbox(/*window=*/1);
  outbox.Add("t", Started());
  Take(outbox);
  outbox.Add("t", Progress(1, "validation/accuracy"));
  outbox.Add("t", Log("between"));
  outbox.Add("t", Progress(2, "train/loss"));
  outbox.Add("t", Progress(3, "train/loss"));
  outbox.Ack("t", 1);
  auto next = Take(outbox);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_TRUE(next[0].has_log());
  outbox.Ack("t", 2);
  next = Take(outbox);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].progress().step(), 3u);
  EXPECT_EQ(next[0].progress().metrics().at("train/loss"), 3);
  EXPECT_EQ(next[0].progress().metrics().at("validation/accuracy"), 1);
}

TEST(ReportOutboxTest, ProgressNeverOvertakesACheckpoint) {
  ReportOutbox outbox(/*window=*/1);
  outbox.Add("t", Started());
  Take(outbox);
  outbox.Add("t", Progress(1));
  outbox.Add("t", Checkpoint(1));
  outbox.Add("t", Progress(2));
  std::vector<uint64_t> steps;
  for (uint64_t seq = 1; seq <= 3; ++seq) {
    outbox.Ack("t", seq);
    for (const auto& report : Take(outbox)) {
      steps.push_back(report.has_checkpoint() ? 100 : report.progress().step());
    }
  }
  EXPECT_EQ(steps, (Numbers{1, 100, 2}));
}

TEST(ReportOutboxTest, WaitingLogsAreBoundedAndTheLossIsTold) {
  ReportOutbox outbox(/*window=*/1, /*log_bytes=*/100);
  outbox.Add("t", Started());
  Take(outbox);
  for (int i = 0; i < 100; ++i) outbox.Add("t", Log("line " + std::to_string(i)));
  outbox.Add("t", Finished());
  std::vector<std::string> lines;
  bool finished = false;
  for (uint64_t seq = 1; !finished && seq < 200; ++seq) {
    outbox.Ack("t", seq);
    for (const auto& report : Take(outbox)) {
      for (const auto& line : report.log().lines()) lines.push_back(line);
      finished = report.has_finished();
    }
  }
  EXPECT_TRUE(finished);
  ASSERT_LT(lines.size(), 30u);
  EXPECT_NE(lines[0].find("log lines dropped"), std::string::npos) << lines[0];
  EXPECT_EQ(lines.back(), "line 99");
}

TEST(ReportOutboxTest, NothingFollowsAFinish) {
  ReportOutbox outbox;
  outbox.Add("t", Finished());
  EXPECT_EQ(outbox.Add("t", Log("late")), 0u);
  EXPECT_EQ(Take(outbox).size(), 1u);
}

TEST(ReportOutboxTest, AForgottenTaskIsSilent) {
  ReportOutbox outbox;
  outbox.Add("t", Started());
  const uint64_t name = outbox.Add("t", Checkpoint(1), true);
  outbox.Forget("t");
  outbox.Release("t", name, Checkpoint(1));
  EXPECT_TRUE(outbox.empty());
  EXPECT_TRUE(Take(outbox).empty());
}

}  // namespace
}  // namespace lepton::worker
