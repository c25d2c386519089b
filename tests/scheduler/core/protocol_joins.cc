// Joiners that get the state in pieces beside the steps, as
// worker/train/{state_stream,loop_join}.cc give it to them (docs/decisions/join.md): a joiner takes
// part in the sums before it has the state, updates what it has, and counts as one that has none
// until all have cut over.
#include <fmt/format.h>

#include <algorithm>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {

bool Explorer::JoinsBesideSteps(const std::vector<int>& members, int place) const {
  if (options_.pieces == 0 || options_.slices || place < 0) return false;
  bool lacks = false;
  for (const int seat : members) {
    const ModelTask& task = view_->tasks.at(seat);
    // One that is a step behind gets all as they meet, and so do the others.
    if (task.has_state && (lacks || task.place != place)) return false;
    lacks = lacks || !task.has_state;
  }
  return lacks;
}

bool Explorer::SourceIsThere(int seat) const {
  const uint64_t epoch = view_->tasks.at(seat).epoch;
  std::vector<int> whole;
  int joiner = 0;
  for (const int member : MembersOf(epoch)) {
    const auto it = view_->tasks.find(member);
    if (it != view_->tasks.end() && it->second.has_state) whole.push_back(member);
    if (member == seat) break;
    if (it == view_->tasks.end() || !it->second.has_state) ++joiner;
  }
  if (whole.empty()) return false;
  const ModelTask& source = view_->tasks.at(whole[static_cast<size_t>(joiner) % whole.size()]);
  return source.phase == ModelTask::kTraining && source.epoch == epoch && !source.hung;
}

// Behind the step's update: that of what was there, and of the piece that came beside it.
void Explorer::TakePiece(ModelTask& task) {
  if (task.joining == 0) return;
  if (!task.has_state) {
    for (int& step : task.held) ++step;
    if (static_cast<int>(task.held.size()) < options_.pieces) task.held.push_back(task.place);
  }
  if (task.joining > 1) --task.joining;
  const bool hurries = task.hurries && options_.broken != Broken::kLeaversDoNotWait;
  task.cuts_over = task.joining == 1 || hurries || task.place == options_.steps;
  if (!task.cuts_over && task.hurries) task.joining = 0;  // it breaks the rule
}

bool Explorer::CanCutOver(uint64_t epoch) const {
  const std::vector<int>& members = MembersOf(epoch);
  return Whole(members) && std::all_of(members.begin(), members.end(), [&](int seat) {
           const auto it = view_->tasks.find(seat);
           return it != view_->tasks.end() && it->second.phase == ModelTask::kTraining &&
                  it->second.epoch == epoch && it->second.cuts_over && !it->second.hung;
         });
}

void Explorer::CutOver(uint64_t epoch) {
  for (const int seat : MembersOf(epoch)) {
    ModelTask& task = node_.world.tasks.at(seat);
    task.joining = 0;
    task.cuts_over = false;
    if (task.place == options_.steps) task.regroup = false;
    if (task.has_state) continue;
    for (const int step : task.held) {
      if (step == task.place) continue;
      Violation(fmt::format("seat {} cuts over at step {} with a piece of step {}", seat,
                            task.place, step));
    }
    task.held.clear();
    task.has_state = true;
  }
}

bool Explorer::Parts(const ModelTask& task) const {
  return options_.pieces > 0 && task.phase == ModelTask::kTraining && task.regroup &&
         !task.reduced && task.joining == 0 && task.place < options_.steps;
}

void Explorer::LeaveStream(ModelTask& task) const {
  task.joining = 0;
  task.hurries = task.cuts_over = false;
  if (options_.broken == Broken::kPiecesAreKept) return;
  if (options_.broken == Broken::kJoinersCountAtOnce && !task.held.empty()) {
    task.has_state = true;
    return;
  }
  task.held.clear();
}

void Explorer::CheckState(int seat, int step) {
  const ModelTask& task = node_.world.tasks.at(seat);
  if (task.joining > 0 || (task.has_state && task.held.empty())) return;
  Violation(fmt::format("seat {} takes part in step {} with {} of {} pieces of the state", seat,
                        step, task.held.size(), options_.pieces));
}

void Explorer::CheckDeaths(uint64_t epoch) {
  if (options_.pieces == 0) return;
  const World& world = node_.world;
  for (const auto& [seat, task] : world.tasks) {
    if (!task.has_state) continue;
    const ModelWorker& worker = world.workers[static_cast<size_t>(task.worker)];
    const auto known = node_.coordinator->tasks.find(seat);
    const bool lost = known != node_.coordinator->tasks.end() && known->second.state() == TASK_LOST;
    const bool through = task.place == options_.steps;
    if (world.dead.contains(seat) || task.hung || lost || through || !worker.linked ||
        worker.known_lost) {
      return;
    }
  }
  Violation(fmt::format("nobody in epoch {} has the state, and nobody who had it died", epoch));
}

}  // namespace lepton::scheduler::model
