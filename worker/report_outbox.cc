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

// Whether it need not wait for an upload that was begun before it.
bool Overtakes(const wire::TaskReport& report) {
  return report.has_endpoint() || report.has_recovered() || report.has_straggler() ||
         report.has_busy() || report.has_progress() || report.has_log() || report.has_gone() ||
         report.has_group_faults();
}

}  // namespace

bool ReportOutbox::Holds(const std::string& task_id) const {
  const auto task = tasks_.find(task_id);
  return task != tasks_.end() &&
         std::any_of(task->second.entries.begin(), task->second.entries.end(),
                     [](const Entry& entry) { return entry.held; });
}

uint64_t ReportOutbox::Add(const std::string& task_id, wire::TaskReport report, bool held) {
  Task& task = tasks_[task_id];
  if (task.finished) return 0;
  report.set_task_id(task_id);
  report.set_seq(0);
  Place place = task.entries.end();
  // None behind a held one has a number yet.
  if (Overtakes(report)) {
    place = std::find_if(task.entries.begin(), task.entries.end(),
                         [](const Entry& entry) { return entry.held; });
  }
  if (!held) place = Thin(task, report, place);
  task.finished = report.has_finished();
  if (report.has_log()) task.waiting_log_bytes += LogBytes(report);
  task.entries.insert(place, {next_name_, std::move(report), held, false});
  return next_name_++;
}

// Makes room for `report`, which is to stand before `place`, among those that have no number yet.
// Returns where that is now.
ReportOutbox::Place ReportOutbox::Thin(Task& task, wire::TaskReport& report, Place place) {
  if (report.has_progress()) {
    for (auto entry = place; entry != task.entries.begin();) {
      --entry;
      if (entry->report.seq() != 0 || entry->held) break;
      if (entry->report.has_log()) continue;
      if (entry->report.has_progress()) {
        MergeProgress(entry->report.progress(), *report.mutable_progress());
        const auto behind = place - entry - 1;
        place = task.entries.erase(entry) + behind;
      }
      break;
    }
  }
  if (!report.has_log() || task.waiting_log_bytes + LogBytes(report) <= log_bytes_) return place;
  size_t dropped = 0;
  const auto before = place - task.entries.begin();
  std::deque<Entry> kept;
  std::ptrdiff_t kept_before = 0;
  for (auto entry = task.entries.begin(); entry != task.entries.end(); ++entry) {
    if (entry->report.seq() == 0 && entry->report.has_log()) {
      task.waiting_log_bytes -= LogBytes(entry->report);
      dropped += static_cast<size_t>(entry->report.log().lines_size());
      continue;
    }
    kept_before += entry - task.entries.begin() < before;
    kept.push_back(std::move(*entry));
  }
  task.entries = std::move(kept);
  place = task.entries.begin() + kept_before;
  if (dropped == 0) return place;
  wire::TaskLog lines;
  lines.add_lines("[" + std::to_string(dropped) + " log lines dropped: the coordinator was away]");
  lines.MergeFrom(report.log());
  *report.mutable_log() = std::move(lines);
  return place;
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

void ReportOutbox::TakeSendable(const std::function<bool(const wire::TaskReport&)>& send) {
  for (auto& [id, task] : tasks_) {
    size_t under_way = 0;
    for (Entry& entry : task.entries) {
      if (entry.held || ++under_way > window_) break;
      if (entry.sent) continue;
      if (entry.report.seq() == 0) {
        entry.report.set_seq(++task.last_seq);
        if (entry.report.has_log()) task.waiting_log_bytes -= LogBytes(entry.report);
      }
      entry.sent = send(entry.report);
      if (!entry.sent) return;
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
