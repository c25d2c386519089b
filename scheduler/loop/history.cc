#include "scheduler/loop/history.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/base/metrics.h"
#include "scheduler/loop/history_rows.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;

// "j17.t4.a2.r0" -> 2
int AttemptOf(std::string_view task_id) {
  const size_t at = task_id.rfind(".a");
  int attempt = 0;
  if (at != std::string_view::npos) {
    std::from_chars(task_id.data() + at + 2, task_id.data() + task_id.size(), attempt);
  }
  return attempt;
}

// Workers send what tasks print, which may be any bytes.
std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

using Rows = std::vector<storage::MetadataStore::Row>;
Result<Rows> ScanAfter(const storage::MetadataStore& store, std::string_view table,
                       const JobId& job, uint64_t after, size_t limit) {
  if (after == UINT64_MAX) return Rows();
  return store.Scan(table, RowKey(job, after + 1), NewestKey(job, ""), limit);
}

}  // namespace

bool History::IsNew(Table& table, const JobId& job, const wire::TaskReport& report) {
  const auto [entry, first] = table.newest.try_emplace(report.task_id(), 0);
  if (first) {
    const auto stored = store_.Get(table.name, NewestKey(job, report.task_id()));
    if (stored.ok() && stored->has_value() && (*stored)->size() == 8) {
      entry->second = storage::U64FromKey(**stored);
    }
  }
  if (report.seq() <= entry->second) return false;
  entry->second = report.seq();
  return true;
}

void History::Append(Table& table, const JobId& job, const wire::TaskReport& report,
                     std::string value) {
  last_seq_ = std::max(last_seq_ + 1, static_cast<uint64_t>(clock_.WallMs()) * 1000);
  std::string key = RowKey(job, last_seq_);
  Usage& added = table.added[job];
  added.rows += 1;
  added.bytes += key.size() + value.size();
  if (added.first == 0) added.first = last_seq_;
  added.last = last_seq_;
  table.pending.emplace_back(std::move(key), std::move(value));
  table.pending.emplace_back(NewestKey(job, report.task_id()), storage::KeyU64(report.seq()));
}

void History::Add(const JobId& job, int trial, const wire::TaskReport& report) {
  if (job.empty()) return;
  if (report.has_log() && IsNew(logs_, job, report)) {
    json lines = json::array();
    for (const auto& line : report.log().lines()) lines.push_back(line);
    Append(logs_, job, report,
           Dump({{"t", report.wall_ms()}, {"task", report.task_id()}, {"lines", lines}}));
  }
  // Of a gang, whoever leads it reports metrics: seat 0 may be gone.
  if (report.has_progress() && !report.progress().metrics().empty() &&
      IsNew(metrics_, job, report)) {
    json values = json::object();
    for (const auto& [key, value] : report.progress().metrics()) {
      if (std::isfinite(value)) values[key] = value;
    }
    Append(metrics_, job, report,
           Dump({{"t", report.wall_ms()},
                 {"task", report.task_id()},
                 {"trial", trial},
                 {"step", report.progress().step()},
                 {"values", values}}));
  }
  if (report.has_finished()) {
    logs_.newest.erase(report.task_id());
    metrics_.newest.erase(report.task_id());
  }
}

void History::Write(Table& table) {
  if (table.pending.empty()) return;
  const std::lock_guard lock(mutex_);
  for (auto& [job, added] : table.added) {
    const Usage& before = table.usage[job];
    added.rows += before.rows;
    added.bytes += before.bytes;
    if (before.first != 0) added.first = before.first;
    table.pending.emplace_back(UsageKey(job), ToText(added));
  }
  const Status status = store_.Put(table.name, table.pending);
  if (status.ok()) {
    for (const auto& [job, usage] : table.added) SetUsage(table, job, usage);
  } else {
    static auto& lost = metrics::Counter("lepton_history_lost_rows_total",
                                         "Log and metric rows that the disk refused.");
    lost.Increment(static_cast<double>((table.pending.size() - table.added.size()) / 2));
    LOG_EVERY_N(WARNING, 100) << table.name << ": " << status.ToString();
  }
  table.pending.clear();
  table.added.clear();
}

void History::Forget(const JobId& job) {
  forgotten_.push_back(job);
}

void History::ForgetOthers(const std::map<JobId, Job>& jobs) {
  for (const Table* table : {&logs_, &metrics_}) {
    for (const auto& [job, usage] : UsageOf(*table)) {
      if (!jobs.contains(job)) Forget(job);
    }
  }
}

void History::DropForgotten(Table& table) {
  const std::lock_guard lock(mutex_);
  for (const JobId& job : forgotten_) {
    const std::string tasks = job.str() + ".";
    auto task = table.newest.lower_bound(tasks);
    while (task != table.newest.end() && task->first.starts_with(tasks)) {
      task = table.newest.erase(task);
    }
    const auto usage = table.usage.find(job);
    if (usage == table.usage.end()) continue;
    const Status status =
        store_.DeleteRange(table.name, job.str() + '\0', job.str() + '\1');  // all of its keys
    LOG_IF(WARNING, !status.ok()) << table.name << " of " << job << ": " << status.ToString();
    total_bytes_ -= usage->second.bytes;
    table.usage.erase(usage);
  }
}

void History::Write() {
  Write(logs_);
  Write(metrics_);
  if (forgotten_.empty()) return;
  DropForgotten(logs_);
  DropForgotten(metrics_);
  forgotten_.clear();
}

Result<std::vector<History::LogRow>> History::Logs(const JobId& job, uint64_t after,
                                                   size_t limit) const {
  LEPTON_ASSIGN_OR_RETURN(const auto rows, ScanAfter(store_, logs_.name, job, after, limit));
  std::vector<LogRow> out;
  for (const auto& [key, text] : rows) {
    try {
      const json value = json::parse(text);
      out.push_back({SeqOf(key), value.at("t").get<int64_t>(), value.at("task").get<std::string>(),
                     value.at("lines").get<std::vector<std::string>>()});
    } catch (const json::exception& error) {
      return DataLoss(fmt::format("logs of job {}: a damaged row: {}", job.str(), error.what()));
    }
  }
  return out;
}

Result<std::vector<History::MetricRow>> History::Metrics(const JobId& job, uint64_t after,
                                                         size_t limit) const {
  LEPTON_ASSIGN_OR_RETURN(const auto rows, ScanAfter(store_, metrics_.name, job, after, limit));
  std::vector<MetricRow> out;
  for (const auto& [key, text] : rows) {
    try {
      const json value = json::parse(text);
      MetricRow row;
      row.seq = SeqOf(key);
      row.time_ms = value.at("t").get<int64_t>();
      row.task_id = value.at("task").get<std::string>();
      row.attempt = AttemptOf(row.task_id);
      row.trial = value.at("trial").get<int>();
      row.step = value.at("step").get<uint64_t>();
      row.values = value.at("values").get<std::map<std::string, double>>();
      out.push_back(std::move(row));
    } catch (const json::exception& error) {
      return DataLoss(fmt::format("metrics of job {}: a damaged row: {}", job.str(), error.what()));
    }
  }
  return out;
}

}  // namespace lepton::scheduler
