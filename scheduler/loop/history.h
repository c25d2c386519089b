// What jobs said while they ran: log lines and metric points, in the metadata store's side tables,
// written once a batch and not synced one by one: the last moments before a power cut may be lost,
// a killed coordinator loses nothing that it wrote.
//
// A row is one report of one task. Its number grows over all jobs and restarts (microseconds since
// the epoch, bumped to stay unique, so it fits a JSON number exactly), and readers resume after it.
// A row per task remembers the newest report that was written: workers send reports again after a
// reconnect, and those are dropped.
//
// Threads: Add and Write from the loop's; reads from any.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::scheduler {

class History {
 public:
  // Both must outlive this.
  History(storage::MetadataStore& store, Clock& clock) : store_(store), clock_(clock) {}

  // Takes log lines of every task, and metric points of rank 0, which speaks for its gang. `trial`
  // is -1 for none. Reports with neither are ignored.
  void Add(const JobId& job, int trial, const wire::TaskReport& report);
  // Writes what was added. A full disk loses it, counted in lepton_history_lost_rows_total.
  void Write();

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

 private:
  struct Table {
    std::string name;
    std::vector<storage::MetadataStore::Row> pending;
    std::map<std::string, uint64_t> newest;  // report written, by task
  };
  bool IsNew(Table& table, const JobId& job, const wire::TaskReport& report);
  void Append(Table& table, const JobId& job, const wire::TaskReport& report, std::string value);
  void Write(Table& table);

  storage::MetadataStore& store_;
  Clock& clock_;
  uint64_t last_seq_ = 0;
  Table logs_{"logs", {}, {}};
  Table metrics_{"metrics", {}, {}};
};

}  // namespace lepton::scheduler
