#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/config.h"
#include "runtime/base/metrics.h"
#include "scheduler/loop/history.h"
#include "scheduler/loop/history_rows.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;

constexpr size_t kPage = 1000;
constexpr int64_t kAgeCheckMs = 600'000;

// What trimming leaves of a limit.
uint64_t Target(uint64_t limit) {
  return limit / 8 * 7;
}

bool IsMarker(const json& row) {
  return row.is_object() && row.contains("dropped");
}

// How many lines a row of `logs` stands for: its own, or those that a marker says are gone.
uint64_t LinesOf(const json& row) {
  if (IsMarker(row)) return row["dropped"].get<uint64_t>();
  const auto lines = row.is_object() ? row.find("lines") : row.end();
  return row.is_object() && lines != row.end() ? lines->size() : 0;
}

std::string Marker(uint64_t lines, int64_t time_ms, const std::string& why) {
  const json row = {{"t", time_ms},
                    {"task", ""},
                    {"lines", {fmt::format("[{} earlier lines are gone: {}]", lines, why)}},
                    {"dropped", lines}};
  return row.dump();
}

void CountTrimmed(const std::string& table, uint64_t rows) {
  metrics::Counter("lepton_history_trimmed_rows_total",
                   "Log and metric rows deleted to stay within the limits.", {{"table", table}})
      .Increment(static_cast<double>(rows));
}

// The first job at or after `from`; empty when there is none.
Result<JobId> NextJob(const storage::MetadataStore& store, std::string_view table,
                      std::string_view from) {
  LEPTON_ASSIGN_OR_RETURN(const auto rows, store.Scan(table, from, "", 1));
  if (rows.empty()) return JobId();
  return JobId(rows.front().first.substr(0, rows.front().first.find('\0')));
}

}  // namespace

std::string History::ToText(const Usage& usage) {
  const json text = {
      {"rows", usage.rows}, {"bytes", usage.bytes}, {"first", usage.first}, {"last", usage.last}};
  return text.dump();
}

void History::SetUsage(Table& table, const JobId& job, const Usage& usage) {
  Usage& known = table.usage[job];
  total_bytes_ += usage.bytes - known.bytes;
  known = usage;
  if ((table.limit_per_job > 0 && usage.bytes > table.limit_per_job) ||
      (limits_.total_bytes > 0 && total_bytes_ > limits_.total_bytes)) {
    over_limit_ = true;
  }
}

Status History::Load() {
  LEPTON_RETURN_IF_ERROR(Load(logs_));
  return Load(metrics_);
}

Status History::Load(Table& table) {
  const std::lock_guard lock(mutex_);
  LEPTON_ASSIGN_OR_RETURN(JobId job, NextJob(store_, table.name, ""));
  while (!job.empty()) {
    LEPTON_ASSIGN_OR_RETURN(const Usage usage, ReadUsage(table, job));
    SetUsage(table, job, usage);
    last_seq_ = std::max(last_seq_, usage.last);
    LEPTON_ASSIGN_OR_RETURN(job, NextJob(store_, table.name, job.str() + '\1'));
  }
  return Status::Ok();
}

// As stored; of rows without (an older program's), by counting.
Result<History::Usage> History::ReadUsage(const Table& table, const JobId& job) const {
  Usage usage;
  LEPTON_ASSIGN_OR_RETURN(const auto text, store_.Get(table.name, UsageKey(job)));
  const json stored = text ? json::parse(*text, nullptr, false) : json();
  if (stored.is_object()) {
    usage.rows = stored.value("rows", uint64_t{0});
    usage.bytes = stored.value("bytes", uint64_t{0});
    usage.first = stored.value("first", uint64_t{0});
    usage.last = stored.value("last", uint64_t{0});
    return usage;
  }
  std::string from = RowKey(job, 0);
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const auto rows,
                            store_.Scan(table.name, from, NewestKey(job, ""), kPage));
    for (const auto& [key, value] : rows) {
      usage.rows += 1;
      usage.bytes += key.size() + value.size();
      usage.last = SeqOf(key);
      if (usage.first == 0) usage.first = usage.last;
    }
    if (rows.size() < kPage) return usage;
    from = RowKey(job, usage.last + 1);
  }
}

uint64_t History::stored_bytes() const {
  const std::lock_guard lock(mutex_);
  return total_bytes_;
}

std::map<JobId, History::Usage> History::UsageOf(const Table& table) const {
  const std::lock_guard lock(mutex_);
  return table.usage;
}

bool History::TrimDue() {
  const bool due = over_limit_ || (limits_.max_age > Duration(0) &&
                                   clock_.WallMs() - age_checked_ms_ >= kAgeCheckMs);
  return due && !trim_called_.exchange(true);
}

void History::Trim() {
  const std::unique_lock trimming(trimming_, std::try_to_lock);
  if (!trimming.owns_lock()) return;
  over_limit_ = false;
  if (limits_.max_age > Duration(0)) {
    age_checked_ms_ = clock_.WallMs();
    TrimByAge(logs_);
    TrimByAge(metrics_);
  }
  TrimLogs();
  ThinMetrics();
  TrimTotal();
  // Not earlier: a call that finds this one under way does nothing, so none may be asked for.
  trim_called_ = false;
}

void History::TrimByAge(Table& table) {
  const auto age = std::chrono::duration_cast<std::chrono::microseconds>(limits_.max_age).count();
  const int64_t cutoff = clock_.WallMs() * 1000 - age;
  if (cutoff <= 0) return;
  for (const auto& [job, usage] : UsageOf(table)) {
    if (usage.first == 0 || usage.first >= static_cast<uint64_t>(cutoff)) continue;
    const Status status = DropOldest(table, job, static_cast<uint64_t>(cutoff), 0,
                                     fmt::format("older than {}", FormatDuration(limits_.max_age)));
    LOG_IF(WARNING, !status.ok()) << table.name << " of " << job << ": " << status.ToString();
  }
}

void History::TrimLogs() {
  const uint64_t limit = limits_.log_bytes_per_job;
  if (limit == 0) return;
  for (const auto& [job, usage] : UsageOf(logs_)) {
    if (usage.bytes <= limit) continue;
    const Status status = DropOldest(logs_, job, 0, usage.bytes - Target(limit),
                                     fmt::format("a job keeps {} of log", FormatBytes(limit)));
    LOG_IF(WARNING, !status.ok()) << "logs of " << job << ": " << status.ToString();
  }
}

void History::ThinMetrics() {
  if (limits_.metric_bytes_per_job == 0) return;
  for (const auto& [job, usage] : UsageOf(metrics_)) {
    if (usage.bytes <= limits_.metric_bytes_per_job) continue;
    const Status status = ThinOut(job);
    LOG_IF(WARNING, !status.ok()) << "metrics of " << job << ": " << status.ToString();
  }
}

void History::TrimTotal() {
  const uint64_t limit = limits_.total_bytes;
  uint64_t total = stored_bytes();
  if (limit == 0 || total <= limit) return;
  struct Candidate {
    uint64_t last;
    JobId job;
    Table* table;
    uint64_t bytes;
  };
  std::vector<Candidate> candidates;
  for (Table* table : {&logs_, &metrics_}) {
    for (const auto& [job, usage] : UsageOf(*table)) {
      // Not what a marker alone is left of.
      if (usage.first > 0) candidates.push_back({usage.last, job, table, usage.bytes});
    }
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.last < b.last; });
  for (const Candidate& candidate : candidates) {
    if (total <= Target(limit)) break;
    const uint64_t bytes = std::min(candidate.bytes, total - Target(limit));
    const Status status = DropOldest(*candidate.table, candidate.job, 0, bytes,
                                     fmt::format("all jobs together keep {}", FormatBytes(limit)));
    LOG_IF(WARNING, !status.ok()) << candidate.table->name << " of " << candidate.job << ": "
                                  << status.ToString();
    total = stored_bytes();
  }
}

Status History::DropOldest(Table& table, const JobId& job, uint64_t before, uint64_t bytes,
                           const std::string& why) {
  uint64_t rows_gone = 0, bytes_gone = 0, lines_gone = 0, first_kept = 0, last_gone = 0;
  int64_t last_time_ms = 0;
  std::string from = RowKey(job, 0);
  for (bool more = true; more;) {
    LEPTON_ASSIGN_OR_RETURN(const auto rows,
                            store_.Scan(table.name, from, NewestKey(job, ""), kPage));
    more = rows.size() == kPage;
    for (const auto& [key, value] : rows) {
      if (SeqOf(key) >= before && bytes_gone >= bytes) {
        first_kept = SeqOf(key);
        more = false;
        break;
      }
      const json row = json::parse(value, nullptr, false);
      rows_gone += 1;
      bytes_gone += key.size() + value.size();
      last_gone = SeqOf(key);
      if (&table == &logs_) lines_gone += LinesOf(row);
      if (row.is_object()) last_time_ms = row.value("t", int64_t{0});
    }
    from = RowKey(job, last_gone + 1);
  }
  if (rows_gone == 0) return Status::Ok();
  std::vector<storage::MetadataStore::Row> marker;
  if (&table == &logs_ && lines_gone > 0) {
    marker.emplace_back(RowKey(job, last_gone), Marker(lines_gone, last_time_ms, why));
    rows_gone -= 1;
    bytes_gone -= std::min(bytes_gone, marker[0].first.size() + marker[0].second.size());
  }
  const std::lock_guard lock(mutex_);
  if (!table.usage.contains(job)) return Status::Ok();  // forgotten meanwhile
  // Written since the scan.
  if (first_kept == 0 && table.usage[job].last > last_gone) first_kept = last_gone + 1;
  LEPTON_RETURN_IF_ERROR(Reduce(table, job, rows_gone, bytes_gone, first_kept));
  LEPTON_RETURN_IF_ERROR(
      store_.DeleteRange(table.name, RowKey(job, 0), RowKey(job, last_gone + 1)));
  if (!marker.empty()) LEPTON_RETURN_IF_ERROR(store_.Put(table.name, marker));
  CountTrimmed(table.name, rows_gone);
  return Status::Ok();
}

// Half of each task's rows, those that leave its curve with even gaps between the steps: after many
// calls the old part of a curve is no sparser than the new. The first row and the newest stay.
Status History::ThinOut(const JobId& job) {
  struct Point {
    std::string key;
    uint64_t step = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, std::vector<Point>> curves;  // by task
  std::string from = RowKey(job, 0);
  for (bool more = true; more;) {
    LEPTON_ASSIGN_OR_RETURN(const auto rows,
                            store_.Scan(metrics_.name, from, NewestKey(job, ""), kPage));
    more = rows.size() == kPage;
    for (const auto& [key, value] : rows) {
      from = RowKey(job, SeqOf(key) + 1);
      const json row = json::parse(value, nullptr, false);
      const bool good = row.is_object() && row["task"].is_string() && row["step"].is_number();
      curves[good ? row["task"].get<std::string>() : std::string()].push_back(
          {key, good ? row["step"].get<uint64_t>() : 0, key.size() + value.size()});
    }
  }
  std::vector<std::string> gone;
  uint64_t bytes_gone = 0, first_kept = UINT64_MAX;
  for (const auto& [task, points] : curves) {
    const uint64_t start = points.front().step;
    const uint64_t range = std::max(points.back().step, start) - start;
    const double gap =
        std::max(2.0 * static_cast<double>(range) / static_cast<double>(points.size()), 1.0);
    uint64_t last = start;
    for (const Point& point : points) {
      const bool end = &point == &points.front() || &point == &points.back();
      if (end || (point.step > last && static_cast<double>(point.step - last) >= gap)) {
        last = point.step;
        first_kept = std::min(first_kept, SeqOf(point.key));
      } else {
        gone.push_back(point.key);
        bytes_gone += point.bytes;
      }
    }
  }
  if (gone.empty()) return Status::Ok();
  const std::lock_guard lock(mutex_);
  if (!metrics_.usage.contains(job)) return Status::Ok();  // forgotten meanwhile
  LEPTON_RETURN_IF_ERROR(Reduce(metrics_, job, gone.size(), bytes_gone, first_kept));
  LEPTON_RETURN_IF_ERROR(store_.Delete(metrics_.name, gone));
  CountTrimmed(metrics_.name, gone.size());
  return Status::Ok();
}

// Before the rows go: should we die in between, too little is counted rather than too much.
Status History::Reduce(Table& table, const JobId& job, uint64_t rows, uint64_t bytes,
                       uint64_t first) {
  Usage usage = table.usage[job];
  usage.rows -= std::min(usage.rows, rows);
  usage.bytes -= std::min(usage.bytes, bytes);
  usage.first = first;
  LEPTON_RETURN_IF_ERROR(store_.Put(table.name, {{UsageKey(job), ToText(usage)}}));
  SetUsage(table, job, usage);
  return Status::Ok();
}

}  // namespace lepton::scheduler
