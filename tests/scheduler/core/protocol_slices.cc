// A state in slices (parallel.zero), as worker/train/{zero_meeting,zero_recut,loop_drain}.cc have
// it: who holds which, how those that leave hand over, and what all of them write when all leave.
#include <fmt/format.h>

#include <algorithm>

#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {

bool Explorer::HandsOver(const ModelTask& task) const {
  if (task.leave_at_once || options_.broken == Broken::kLeavesAtOnce) return false;
  return options_.slices ? task.epoch > 0 : HasGroup(task);
}

// Slice i is the i-th seat's and the next one's: pairs of two, a ring of three.
bool Explorer::TakeSlices(const std::vector<int>& members, int place) {
  World& world = node_.world;
  const auto has = [&](int seat) {
    const bool here = std::find(members.begin(), members.end(), seat) != members.end();
    return here && world.tasks.at(seat).has_state && world.tasks.at(seat).place == place;
  };
  for (size_t i = 0; i < world.cut.size(); ++i) {
    const int owner = world.cut[i], buddy = world.cut[(i + 1) % world.cut.size()];
    if (has(owner) || has(buddy)) continue;
    // Or it is through, as the others would be in a moment.
    const auto died = [&](int seat) {
      return world.dead.contains(seat) || world.tasks.at(seat).place == options_.steps;
    };
    if (!died(owner) || !died(buddy)) {
      Violation(fmt::format("the slice of seats {} and {} is lost at step {}, and not by deaths",
                            owner, buddy, place));
    }
    for (const int seat : members) End(seat, "INTERNAL");
    return false;
  }
  world.best = std::max(world.best, place);
  return true;
}

void Explorer::PartAsTheyMeet(const std::vector<int>& members) {
  World& world = node_.world;
  const auto leaving = std::count_if(members.begin(), members.end(),
                                     [&](int seat) { return world.tasks.at(seat).leave; });
  const bool last = world.tasks.at(members[0]).place == options_.steps;
  const bool all = leaving == static_cast<int>(members.size());
  // Those that only hand over do not cut the slices anew before.
  if (leaving == 0 || all || last) world.cut = members;
  if (leaving == 0 || last) return;
  for (const int seat : members) {
    ModelTask& task = world.tasks.at(seat);
    task.parts = task.parting = true;
    task.goes = task.leave;
  }
}

bool Explorer::CanHandOver(uint64_t epoch) const {
  const std::vector<int> members = MembersOf(epoch);
  return Whole(members) && std::all_of(members.begin(), members.end(), [&](int seat) {
           const auto it = view_->tasks.find(seat);
           return it != view_->tasks.end() && it->second.phase == ModelTask::kTraining &&
                  it->second.epoch == epoch && it->second.parting && !it->second.hung;
         });
}

void Explorer::HandOver(uint64_t epoch) {
  World& world = node_.world;
  std::vector<int> staying, going;
  for (const int seat : MembersOf(epoch)) {
    (world.tasks.at(seat).goes ? going : staying).push_back(seat);
  }
  for (const int seat : MembersOf(epoch)) {
    ModelTask& task = world.tasks.at(seat);
    task.handed = true;
    task.saved = staying.empty();
    if (!task.saved) task.left = going;
  }
  if (!staying.empty()) {
    world.cut = staying;
  } else {
    world.saved = std::max(world.saved, world.tasks.at(MembersOf(epoch)[0]).place);
  }
}

// The job starts again from a checkpoint, or waits to: it is the newest step's, unless both that
// held a slice of it died.
void Explorer::CheckNothingLost(const Node& node) {
  const World& world = node.world;
  if (node.coordinator->job_state == "SUCCEEDED" || world.saved >= world.best) return;
  const auto gone = [&](int seat) {
    const ModelTask& task = world.tasks.at(seat);
    const ModelWorker& worker = world.workers[static_cast<size_t>(task.worker)];
    // Or it was through, and its result is lost with its worker.
    const bool through = task.place == options_.steps;
    return world.dead.contains(seat) || through || task.hung || !worker.linked || worker.known_lost;
  };
  for (size_t i = 0; i < world.cut.size(); ++i) {
    if (gone(world.cut[i]) && gone(world.cut[(i + 1) % world.cut.size()])) return;
  }
  Violation(fmt::format("the job goes on from step {}, and those that had step {} live or left",
                        world.saved, world.best));
}

}  // namespace lepton::scheduler::model
