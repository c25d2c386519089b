#include "worker/report_outbox.h"

#include <algorithm>
#include <utility>

namespace lepton::worker {
namespace {

size_t LogBytes(const wire::TaskReport& report) {
  size_t bytes = 0;
  for (const std::string& line : report.log().lines()) bytes += line.size() + 1;
  return bytes;
}

// The newer report, with the metrics that only the older one had.
void MergeProgress(const wire::TaskProgress& older, wire::TaskProgress& newer) {
  for (const auto& [name, value] : older.metrics()) newer.mutable_metrics()->insert({name, value});
}

}  // namespace

uint64_t ReportOutbox::Add(const std::string& task_id, wire::TaskReport report, bool held) {
  Task& task = tasks_[task_id];
  if (task.finished) return 0;
  report.set_task_id(task_id);
  report.set_seq(0);
  if (!held) Thin(task, report);
  task.finished = report.has_finished();
  if (report.has_log()) task.waiting_log_bytes += LogBytes(report);
  task.entries.push_back({next_name_, std::move(report), held, false});
  return next_name_++;
}

// Makes room for `report` among those that have no number yet.
void ReportOutbox::Thin(Task& task, wire::TaskReport& report) {
  if (report.has_progress()) {
    for (auto entry = task.entries.rbegin(); entry != task.entries.rend(); ++entry) {
      if (entry->report.seq() != 0 || entry->held) break;
      if (entry->report.has_log()) continue;
      if (entry->report.has_progress()) {
        MergeProgress(entry->report.progress(), *report.mutable_progress());
        task.entries.erase(std::next(entry).base());
      }
      break;
    }
  }
  if (!report.has_log() || task.waiting_log_bytes + LogBytes(report) <= log_bytes_) return;
  size_t dropped = 0;
  for (Entry& entry : task.entries) {
    if (entry.report.seq() != 0 || !entry.report.has_log()) continue;
    task.waiting_log_bytes -= LogBytes(entry.report);
    dropped += static_cast<size_t>(entry.report.log().lines_size());
    entry.report.clear_body();
  }
  std::erase_if(task.entries, [](const Entry& entry) {
    return entry.report.body_case() == wire::TaskReport::BODY_NOT_SET;
  });
  if (dropped == 0) return;
  wire::TaskLog lines;
  lines.add_lines("[" + std::to_string(dropped) + " log lines dropped: the coordinator was away]");
  lines.MergeFrom(report.log());
  *report.mutable_log() = std::move(lines);
}

void ReportOutbox::Release(const std::string& task_id, uint64_t name, wire::TaskReport report) {
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return;
  for (Entry& entry : task->second.entries) {
    if (entry.name != name || !entry.held) continue;
    report.set_task_id(task_id);
    report.set_seq(0);
    entry.report = std::move(report);
    entry.held = false;
    return;
  }
}

void ReportOutbox::TakeSendable(const std::function<void(const wire::TaskReport&)>& send) {
  for (auto& [id, task] : tasks_) {
    size_t under_way = 0;
    for (Entry& entry : task.entries) {
      if (entry.held || ++under_way > window_) break;
      if (entry.sent) continue;
      if (entry.report.seq() == 0) {
        entry.report.set_seq(++task.last_seq);
        if (entry.report.has_log()) task.waiting_log_bytes -= LogBytes(entry.report);
      }
      entry.sent = true;
      send(entry.report);
    }
  }
}

void ReportOutbox::Ack(const std::string& task_id, uint64_t seq) {
  const auto at = tasks_.find(task_id);
  if (at == tasks_.end()) return;
  Task& task = at->second;
  while (!task.entries.empty() && task.entries.front().report.seq() != 0 &&
         task.entries.front().report.seq() <= seq) {
    task.entries.pop_front();
  }
  if (task.finished && task.entries.empty()) tasks_.erase(at);
}

void ReportOutbox::Replay() {
  for (auto& [id, task] : tasks_) {
    for (Entry& entry : task.entries) entry.sent = false;
  }
}

std::vector<wire::RunningTask> ReportOutbox::Tasks() const {
  std::vector<wire::RunningTask> tasks;
  for (const auto& [id, task] : tasks_) {
    wire::RunningTask& running = tasks.emplace_back();
    running.set_task_id(id);
    running.set_last_seq(task.last_seq);
  }
  return tasks;
}

}  // namespace lepton::worker
