// What jobs said while they ran: log lines and metric points, in the metadata store's side tables,
// written once a batch and not synced one by one: the last moments before a power cut may be lost,
// a killed coordinator loses nothing that it wrote.
//
// A row is one report of one task. Its number grows over all jobs and restarts (microseconds since
// the epoch, bumped to stay unique, so it fits a JSON number exactly), and readers resume after it.
// A row per task remembers the newest report that was written: workers send reports again after a
// reconnect, and those are dropped.
//
// How much is kept is bounded. A job's oldest log lines give way to its newest, and a line in their
// place says how many went; its metric points are thinned to half, evenly, so that a curve
// keeps its whole length. Over the limit of all jobs, what has been silent longest goes first.
//
// Threads: Load before all else; Add, Forget and Write from the loop's; Trim from any, one call at
// a time (others return at once); reads from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"
#include "scheduler/core/records.pb.h"
#include "scheduler/loop/history_limits.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::scheduler {

class History {
 public:
  // Both must outlive this.
  History(storage::MetadataStore& store, Clock& clock, HistoryLimits limits = {})
      : store_(store), clock_(clock), limits_(limits) {}

  // Learns how much is stored: a few reads a job.
  Status Load();

  // Takes log lines of every task, and metric points of rank 0, which speaks for its gang. `trial`
  // is -1 for none. Reports with neither are ignored.
  void Add(const JobId& job, int trial, const wire::TaskReport& report);
  // Of a job that is no more; the rows go with the next Write.
  void Forget(const JobId& job);
  // Forgets jobs that are not among these: a coordinator died before it had forgotten theirs.
  void ForgetOthers(const std::map<JobId, Job>& jobs);
  // Writes what was added. A full disk loses it, counted in lepton_history_lost_rows_total.
  void Write();

  // Whether Trim must be called: a limit is exceeded, or age was not looked at for a while. True
  // once, until it was and has returned. Cheap.
  bool TrimDue();
  // Deletes what is over the limits, counted in lepton_history_trimmed_rows_total. Reads and writes
  // go on meanwhile.
  void Trim();

  struct LogRow {
    uint64_t seq = 0;
    int64_t time_ms = 0;
    std::string task_id;
    std::vector<std::string> lines;
  };
  struct MetricRow {
    uint64_t seq = 0;
    int64_t time_ms = 0;
    std::string task_id;
    int attempt = 0;
    int trial = -1;
    uint64_t step = 0;
    std::map<std::string, double> values;
  };
  // Rows after number `after`, oldest first.
  Result<std::vector<LogRow>> Logs(const JobId& job, uint64_t after, size_t limit) const;
  Result<std::vector<MetricRow>> Metrics(const JobId& job, uint64_t after, size_t limit) const;

  // Bytes of all rows, both tables.
  uint64_t stored_bytes() const;

 private:
  // Of one job in one table. A marker (what stands for dropped lines) counts, but has no age.
  struct Usage {
    uint64_t rows = 0;
    uint64_t bytes = 0;
    uint64_t first = 0;  // number of the oldest row; 0: none
    uint64_t last = 0;   // of the newest that was ever written
  };
  struct Table {
    std::string name;
    uint64_t limit_per_job = 0;
    std::vector<storage::MetadataStore::Row> pending;
    std::map<JobId, Usage> added;            // by `pending`
    std::map<std::string, uint64_t> newest;  // report written, by task
    std::map<JobId, Usage> usage;            // under mutex_
  };
  bool IsNew(Table& table, const JobId& job, const wire::TaskReport& report);
  void Append(Table& table, const JobId& job, const wire::TaskReport& report, std::string value);
  void Write(Table& table);
  void DropForgotten(Table& table);
  // Takes the place of what is known of the job (mutex_ held).
  void SetUsage(Table& table, const JobId& job, const Usage& usage);
  static std::string ToText(const Usage& usage);

  // ---- history_trim.cc ----
  Status Load(Table& table);
  Result<Usage> ReadUsage(const Table& table, const JobId& job) const;
  void TrimByAge(Table& table);
  void TrimLogs();
  void ThinMetrics();
  void TrimTotal();
  std::map<JobId, Usage> UsageOf(const Table& table) const;  // a copy
  // Drops the oldest rows: all before number `before`, and more until `bytes` are gone.
  Status DropOldest(Table& table, const JobId& job, uint64_t before, uint64_t bytes,
                    const std::string& why);
  Status ThinOut(const JobId& job);
  // Makes the usage that much smaller, durably (mutex_ held).
  Status Reduce(Table& table, const JobId& job, uint64_t rows, uint64_t bytes, uint64_t first);

  storage::MetadataStore& store_;
  Clock& clock_;
  const HistoryLimits limits_;
  uint64_t last_seq_ = 0;
  std::vector<JobId> forgotten_;
  mutable std::mutex mutex_;  // the usages, and every write of theirs
  std::mutex trimming_;
  std::atomic<bool> over_limit_{false};
  std::atomic<bool> trim_called_{false};
  std::atomic<int64_t> age_checked_ms_{0};
  uint64_t total_bytes_ = 0;  // under mutex_
  Table logs_{.name = "logs", .limit_per_job = limits_.log_bytes_per_job};
  Table metrics_{.name = "metrics", .limit_per_job = limits_.metric_bytes_per_job};
};

}  // namespace lepton::scheduler
