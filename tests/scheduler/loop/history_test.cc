// What is kept of logs and metrics, and what goes first.
#include "scheduler/loop/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/base/file.h"

namespace lepton::scheduler {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::HasSubstr;

class HistoryTest : public testing::Test {
 protected:
  HistoryTest() { Open({}); }

  void Open(HistoryLimits limits) {
    history_.reset();
    if (store_ == nullptr) {
      auto store = storage::MetadataStore::Open(folder_.path() / "metadata");
      ASSERT_TRUE(store.ok()) << store.status().ToString();
      store_ = std::move(*store);
    }
    history_ = std::make_unique<History>(*store_, clock_, limits);
    const Status loaded = history_->Load();
    ASSERT_TRUE(loaded.ok()) << loaded.ToString();
  }
  void Log(const std::string& job, const std::string& line) {
    wire::TaskReport report = Report(job);
    report.mutable_log()->add_lines(line);
    Add(job, report);
  }
  void Metric(const std::string& job, uint64_t step, const std::string& seat = "r0") {
    wire::TaskReport report = Report(job);
    report.set_task_id(job + ".a1." + seat);
    report.mutable_progress()->set_step(step);
    (*report.mutable_progress()->mutable_metrics())["loss"] = 1.0 / static_cast<double>(step);
    Add(job, report);
  }
  std::vector<std::string> Lines(const std::string& job) {
    std::vector<std::string> lines;
    const auto rows = history_->Logs(JobId(job), 0, 100'000);
    for (const auto& row : rows.value()) {
      lines.insert(lines.end(), row.lines.begin(), row.lines.end());
    }
    return lines;
  }
  std::vector<uint64_t> Steps(const std::string& job) {
    std::vector<uint64_t> steps;
    const auto rows = history_->Metrics(JobId(job), 0, 100'000);
    for (const auto& row : rows.value()) steps.push_back(row.step);
    return steps;
  }
  void TrimIfDue() {
    if (history_->TrimDue()) history_->Trim();
  }

  ManualClock clock_;
  TempFolder folder_;
  std::unique_ptr<storage::MetadataStore> store_;
  std::unique_ptr<History> history_;

 private:
  wire::TaskReport Report(const std::string& job) {
    wire::TaskReport report;
    report.set_task_id(job + ".a1.r0");
    report.set_seq(++seq_);
    report.set_wall_ms(clock_.WallMs());
    return report;
  }
  void Add(const std::string& job, const wire::TaskReport& report) {
    history_->Add(JobId(job), -1, report);
    history_->Write();
    clock_.Advance(milliseconds(1));
  }

  uint64_t seq_ = 0;
};

// "[12 earlier lines are gone: ...]" -> 12
uint64_t GoneLines(const std::string& marker) {
  return std::strtoull(marker.c_str() + 1, nullptr, 10);
}

TEST_F(HistoryTest, ReportsThatComeAgainAreDropped) {
  wire::TaskReport report;
  report.set_task_id("j1.a1.r0");
  report.set_seq(1);
  report.mutable_log()->add_lines("once");
  history_->Add(JobId("j1"), -1, report);
  history_->Write();
  history_->Add(JobId("j1"), -1, report);
  history_->Write();
  Open({});
  history_->Add(JobId("j1"), -1, report);
  history_->Write();
  EXPECT_THAT(Lines("j1"), testing::ElementsAre("once"));
}

TEST_F(HistoryTest, MetricsGoOnWhenAnotherSeatLeads) {
  Metric("j1", 1);
  Metric("j1", 2, "r1");
  EXPECT_EQ(Steps("j1"), (std::vector<uint64_t>{1, 2}));
}

TEST_F(HistoryTest, AJobsOldestLinesGiveWayToItsNewest) {
  Open({.log_bytes_per_job = 16 << 10});
  for (uint64_t i = 1; i <= 1000; ++i) {
    Log("j1", "line " + std::to_string(i));
    Log("j2", "other");
    TrimIfDue();
  }
  std::vector<std::string> lines = Lines("j1");
  EXPECT_THAT(lines[0], HasSubstr("earlier lines are gone: a job keeps 16KiB of log"));
  EXPECT_EQ(GoneLines(lines[0]) + lines.size() - 1, 1000u);
  EXPECT_EQ(lines[1], "line " + std::to_string(GoneLines(lines[0]) + 1));
  EXPECT_EQ(lines.back(), "line 1000");
  EXPECT_GT(lines.size(), 100u);
  EXPECT_LE(history_->stored_bytes(), 2u * (16 << 10) + 300);
  EXPECT_FALSE(history_->TrimDue());
  Open({.log_bytes_per_job = 16 << 10});
  EXPECT_EQ(Lines("j1"), lines);
}

TEST_F(HistoryTest, AReaderGoesOnWhereItWasAcrossATrim) {
  Open({.log_bytes_per_job = 16 << 10});
  for (int i = 0; i < 100; ++i) Log("j1", "line " + std::to_string(i));
  const uint64_t seen = history_->Logs(JobId("j1"), 0, 1000).value().back().seq;
  for (int i = 100; i < 600; ++i) Log("j1", "line " + std::to_string(i));
  TrimIfDue();
  const auto rest = history_->Logs(JobId("j1"), seen, 1000).value();
  ASSERT_FALSE(rest.empty());
  EXPECT_THAT(rest[0].lines[0], HasSubstr("earlier lines are gone"))
      << "it must learn that it missed lines";
  EXPECT_EQ(rest.back().lines[0], "line 599");
}

TEST_F(HistoryTest, MetricCurvesAreThinnedOverTheirWholeLength) {
  Open({.metric_bytes_per_job = 64 << 10});
  for (uint64_t step = 1; step <= 3000; ++step) {
    Metric("j1", step);
    TrimIfDue();
  }
  const std::vector<uint64_t> steps = Steps("j1");
  EXPECT_LE(history_->stored_bytes(), uint64_t{64} << 10);
  EXPECT_GT(steps.size(), 200u);
  EXPECT_EQ(steps.front(), 1u);
  EXPECT_EQ(steps.back(), 3000u);
  for (size_t i = 1; i < steps.size(); ++i) EXPECT_LT(steps[i] - steps[i - 1], 100u) << i;
}

TEST_F(HistoryTest, WhatHasBeenSilentLongestGoesFirst) {
  Open({.total_bytes = 32 << 10});
  for (int i = 0; i < 100; ++i) Log("old", "line");
  for (int i = 0; i < 100; ++i) Metric("young", static_cast<uint64_t>(i) + 1);
  for (int i = 0; i < 300; ++i) {
    Log("busy", "line");
    TrimIfDue();
  }
  EXPECT_LE(history_->stored_bytes(), uint64_t{32} << 10);
  EXPECT_THAT(Lines("old"),
              testing::ElementsAre(HasSubstr("[100 earlier lines are gone: all jobs")));
  EXPECT_LT(Steps("young").size(), 100u);
  EXPECT_EQ(Lines("busy").size(), 300u);
}

TEST_F(HistoryTest, WhatIsOldGoes) {
  Open({.max_age = hours(48)});
  for (int i = 0; i < 10; ++i) Log("j1", "first day");
  Metric("j1", 1);
  TrimIfDue();
  clock_.Advance(hours(36));
  for (int i = 0; i < 5; ++i) Log("j1", "second day");
  TrimIfDue();
  EXPECT_EQ(Lines("j1").size(), 15u);
  clock_.Advance(hours(24));
  ASSERT_TRUE(history_->TrimDue());
  history_->Trim();
  const std::vector<std::string> lines = Lines("j1");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0], "[10 earlier lines are gone: older than 2d]");
  EXPECT_EQ(lines[1], "second day");
  EXPECT_TRUE(Steps("j1").empty());
  clock_.Advance(hours(48));
  for (int i = 0; i < 3; ++i) {
    TrimIfDue();
    clock_.Advance(hours(1));
  }
  EXPECT_THAT(Lines("j1"), testing::ElementsAre("[15 earlier lines are gone: older than 2d]"));
}

TEST_F(HistoryTest, NoLimitKeepsAll) {
  Open({.log_bytes_per_job = 0, .metric_bytes_per_job = 0, .total_bytes = 0, .max_age = {}});
  for (uint64_t i = 1; i <= 50; ++i) {
    Log("j1", std::string(1000, 'x'));
    Metric("j1", i);
    clock_.Advance(hours(1000));
    EXPECT_FALSE(history_->TrimDue());
  }
  history_->Trim();
  EXPECT_EQ(Lines("j1").size(), 50u);
  EXPECT_EQ(Steps("j1").size(), 50u);
}

TEST_F(HistoryTest, RowsOfAnOlderProgramAreCounted) {
  for (int i = 0; i < 100; ++i) Log("j1", "line");
  Metric("j2", 1);
  const uint64_t bytes = history_->stored_bytes();
  EXPECT_GT(bytes, 100u * 10);
  ASSERT_TRUE(store_->Delete("logs", {std::string("j1\0u", 4)}).ok());
  ASSERT_TRUE(store_->Delete("metrics", {std::string("j2\0u", 4)}).ok());
  Open({});
  EXPECT_EQ(history_->stored_bytes(), bytes);
}

TEST_F(HistoryTest, TrimmingRunsBesideWritersAndReaders) {
  Open({.log_bytes_per_job = 8 << 10, .metric_bytes_per_job = 8 << 10});
  std::atomic<bool> done{false};
  std::thread trimmer([&] {
    while (!done) TrimIfDue();
  });
  std::thread reader([&] {
    while (!done) {
      EXPECT_TRUE(history_->Logs(JobId("j1"), 0, 100).ok());
      EXPECT_TRUE(history_->Metrics(JobId("j1"), 0, 100).ok());
    }
  });
  for (uint64_t i = 1; i <= 2000; ++i) {
    Log("j1", "line");
    Metric("j1", i);
  }
  done = true;
  trimmer.join();
  reader.join();
  TrimIfDue();
  const std::vector<std::string> lines = Lines("j1");
  EXPECT_EQ(GoneLines(lines[0]) + lines.size() - 1, 2000u);
  EXPECT_EQ(Steps("j1").back(), 2000u);
  const uint64_t counted = history_->stored_bytes();
  ASSERT_TRUE(store_->Delete("logs", {std::string("j1\0u", 4)}).ok());
  ASSERT_TRUE(store_->Delete("metrics", {std::string("j1\0u", 4)}).ok());
  Open({});
  EXPECT_EQ(counted, history_->stored_bytes()) << "what was counted must be what is there";
}

// Its scans wait while `shut`; the rest is another store's.
class SlowStore final : public storage::MetadataStore {
 public:
  explicit SlowStore(MetadataStore& store) : store_(store) {}
  Result<std::vector<Row>> Scan(std::string_view table, std::string_view from, std::string_view to,
                                size_t limit) const override {
    waiting = shut.load();
    waiting.notify_all();
    shut.wait(true);
    return store_.Scan(table, from, to, limit);
  }
  Result<uint64_t> Append(const std::vector<std::string>& records) override {
    return store_.Append(records);
  }
  uint64_t last_seq() const override { return store_.last_seq(); }
  Status Replay(uint64_t after_seq,
                const std::function<Status(uint64_t, std::string_view)>& each) const override {
    return store_.Replay(after_seq, each);
  }
  Status WriteSnapshot(uint64_t seq, std::string_view state, uint64_t keep_after) override {
    return store_.WriteSnapshot(seq, state, keep_after);
  }
  Result<std::optional<Snapshot>> ReadSnapshot() const override { return store_.ReadSnapshot(); }
  Status Put(std::string_view table, const std::vector<Row>& rows) override {
    return store_.Put(table, rows);
  }
  Result<std::optional<std::string>> Get(std::string_view table,
                                         std::string_view key) const override {
    return store_.Get(table, key);
  }
  Status Delete(std::string_view table, const std::vector<std::string>& keys) override {
    return store_.Delete(table, keys);
  }
  Status DeleteRange(std::string_view table, std::string_view from, std::string_view to) override {
    return store_.DeleteRange(table, from, to);
  }
  Status Flush() override { return store_.Flush(); }

  std::atomic<bool> shut{false};
  mutable std::atomic<bool> waiting{false};

 private:
  MetadataStore& store_;
};

// A busy job goes over its limit again while the first trim still reads.
TEST_F(HistoryTest, TrimmingGoesOnAfterOneThatWasAskedForMeanwhile) {
  SlowStore slow(*store_);
  history_ = std::make_unique<History>(slow, clock_, HistoryLimits{.log_bytes_per_job = 4'096});
  const std::string line(100, 'x');
  for (int i = 0; i < 50; ++i) Log("j1", line);
  ASSERT_TRUE(history_->TrimDue());
  slow.shut = true;
  std::thread trim([&] { history_->Trim(); });
  slow.waiting.wait(false);
  Log("j1", line);
  TrimIfDue();
  slow.shut = false;
  slow.shut.notify_all();
  trim.join();
  for (int i = 0; i < 50; ++i) Log("j1", line);
  EXPECT_TRUE(history_->TrimDue());
  history_->Trim();
  EXPECT_LE(history_->stored_bytes(), 4'096u);
}

TEST_F(HistoryTest, OfAForgottenJobNothingIsLeft) {
  Log("j1", "gone");
  Metric("j1", 1);
  Log("j10", "kept");
  Metric("j10", 1);
  const uint64_t both = history_->stored_bytes();
  Log("j1", "of the same batch");
  history_->Forget(JobId("j1"));
  history_->Write();
  EXPECT_THAT(Lines("j1"), testing::IsEmpty());
  EXPECT_THAT(Steps("j1"), testing::IsEmpty());
  EXPECT_THAT(Lines("j10"), testing::ElementsAre("kept"));
  EXPECT_LT(history_->stored_bytes(), both);
  const uint64_t left = history_->stored_bytes();
  Open({});
  EXPECT_EQ(history_->stored_bytes(), left) << "nothing of it was counted again";
  for (const char* table : {"logs", "metrics"}) {
    const auto rows = store_->Scan(table, "", "", 1000);
    for (const auto& [key, value] : rows.value()) {
      EXPECT_THAT(key, testing::StartsWith("j10")) << table;
    }
  }
}

TEST_F(HistoryTest, WhatJobsLeftThatAreNoMoreGoesAtTheNextStart) {
  Log("j1", "gone");
  Log("j2", "kept");
  history_->ForgetOthers({{JobId("j2"), Job()}});
  history_->Write();
  EXPECT_THAT(Lines("j1"), testing::IsEmpty());
  EXPECT_THAT(Lines("j2"), testing::ElementsAre("kept"));
}

}  // namespace
}  // namespace lepton::scheduler
