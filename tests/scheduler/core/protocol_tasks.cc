#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {

bool Explorer::Ignores(const ModelOrder& order) const {
  const auto it = node_.world.tasks.find(order.seat);
  if (order.kind == ModelOrder::kStart) return it != node_.world.tasks.end();
  if (it == node_.world.tasks.end()) return order.kind != ModelOrder::kStop;
  const ModelTask& task = it->second;
  if (!task.alive()) return true;
  if (order.kind == ModelOrder::kStop) {
    return !order.kill && (order.alone ? task.leave : task.stop) &&
           (task.leave_at_once || !order.at_once);
  }
  if (order.epoch <= task.epoch) return true;
  if (!task.newest || order.epoch > task.newest->epoch) return false;
  return order.epoch < task.newest->epoch || order.members.empty() ||
         order.text == task.newest->text;
}

void Explorer::Deliver(const OrderPtr& sent, int worker) {
  const ModelOrder& order = *sent;
  World& world = node_.world;
  if (Ignores(order)) return;
  if (order.kind == ModelOrder::kStart) {
    ModelTask task;
    task.worker = worker;
    task.has_state = !order.joins;
    task.probe = order.probe;
    world.tasks[order.seat] = task;
    return;
  }
  if (order.kind == ModelOrder::kStop) {
    // The order to start it was lost.
    if (!world.tasks.contains(order.seat)) {
      world.tasks[order.seat].worker = worker;
      return End(order.seat, "CANCELLED");
    }
    ModelTask& task = world.tasks.at(order.seat);
    if (order.kill) return End(order.seat, "CANCELLED", 9);
    (order.alone ? task.leave : task.stop) = true;
    task.leave_at_once = task.leave_at_once || order.at_once;
    return;
  }
  ModelTask& task = world.tasks.at(order.seat);
  const bool unread =
      task.newest && !task.newest->members.empty() && task.newest->epoch > task.epoch;
  if (unread && order.members.empty()) task.overtaken = task.newest->epoch;
  task.newest = sent;
}

bool Explorer::IsTold(const ModelTask& task) {
  return task.alive() && !task.hung && task.phase == ModelTask::kTraining && task.newest &&
         task.newest->epoch > task.epoch && task.newest->at_once;
}

void Explorer::Listen(int seat, uint64_t left, std::set<int> cannot) {
  ModelTask& task = node_.world.tasks.at(seat);
  // It has the sums, and all know it: it follows those that have applied them.
  if (options_.slices && task.phase == ModelTask::kTraining && task.reduced) ++task.place;
  ModelReport report;
  report.planned = task.handed;
  report.left = task.left;
  task.phase = ModelTask::kListening;
  task.epoch = left;
  task.reduced = task.regroup = task.goes = task.parts = task.parting = task.handed = task.saved =
      false;
  task.left.clear();
  LeaveStream(task);
  report.kind = ModelReport::kEndpoint;
  report.epoch = left;
  report.cannot = std::move(cannot);
  Say(seat, report);
}

// Those of `seats` on workers that this one's cannot reach.
std::set<int> Explorer::BehindCuts(int seat, const std::vector<int>& seats) const {
  std::set<int> behind;
  for (const int other : seats) {
    const auto it = view_->tasks.find(other);
    if (it == view_->tasks.end() || !it->second.alive()) continue;
    if (view_->Cut(view_->tasks.at(seat).worker, it->second.worker)) behind.insert(other);
  }
  return behind;
}

// All of them can reach each other.
bool Explorer::Whole(const std::vector<int>& seats) const {
  return std::all_of(seats.begin(), seats.end(), [&](int seat) {
    return !view_->tasks.contains(seat) || BehindCuts(seat, seats).empty();
  });
}

bool Explorer::HasGroup(const ModelTask& task) const {
  return task.phase == ModelTask::kListening && task.newest && !task.newest->members.empty() &&
         task.newest->epoch > task.epoch;
}

// The seats of an order's group that are not where it expects them: dead, or listening anew.
bool Explorer::Reachable(const ModelOrder& group) const {
  for (size_t i = 0; i < group.seats.size(); ++i) {
    const auto it = view_->tasks.find(group.seats[i]);
    if (it == view_->tasks.end() || !it->second.alive()) return false;
    if (it->second.Address(it->first) != group.members[i]) return false;
  }
  return true;
}

void Explorer::Assemble(const ModelOrder& group) {
  int place = -1;
  for (const int seat : group.seats) {
    const ModelTask& task = node_.world.tasks.at(seat);
    if (task.has_state) place = std::max(place, task.place);
  }
  if (options_.slices && !TakeSlices(group.seats, place)) return;
  if (place < 0) CheckDeaths(group.epoch);
  const bool beside = JoinsBesideSteps(group.seats, place);
  for (const int seat : group.seats) {
    ModelTask& task = node_.world.tasks.at(seat);
    if (place < 0) {  // nobody has the state
      End(seat, "INTERNAL");
      continue;
    }
    task.phase = ModelTask::kTraining;
    task.epoch = group.epoch;
    if (!beside && (!task.has_state || task.place != place)) task.held.clear();
    task.place = place;
    task.joining = beside ? 1 + options_.pieces : 0;
    task.cuts_over = beside && place == options_.steps;  // no step comes to send a piece with
    task.has_state = task.has_state || !beside;
  }
  if (options_.slices && place >= 0) PartAsTheyMeet(group.seats);
}

const std::vector<int>& Explorer::MembersOf(uint64_t epoch) const {
  static const std::vector<int> kNobody;
  const auto it = view_->epochs.find(epoch);
  return it == view_->epochs.end() || !it->second.group ? kNobody : it->second.group->seats;
}

// All members are in it, at the same step.
bool Explorer::CanReduce(uint64_t epoch, int step) const {
  const std::vector<int>& members = MembersOf(epoch);
  return !members.empty() && Whole(members) &&
         std::all_of(members.begin(), members.end(), [&](int seat) {
           const auto it = view_->tasks.find(seat);
           if (options_.broken == Broken::kMinorityGoesOn &&
               (it == view_->tasks.end() || it->second.phase != ModelTask::kTraining ||
                it->second.epoch != epoch)) {
             return true;
           }
           return it != view_->tasks.end() && it->second.phase == ModelTask::kTraining &&
                  it->second.epoch == epoch && it->second.place == step && !it->second.reduced &&
                  !it->second.parting && !it->second.regroup && !it->second.cuts_over &&
                  !it->second.hung;
         });
}

void Explorer::Reduce(uint64_t epoch, int step) {
  bool regroup = false;
  const std::vector<int>& members = MembersOf(epoch);
  int leave = 0;
  bool stop = false;
  for (const int seat : members) {
    const auto it = node_.world.tasks.find(seat);
    if (it == node_.world.tasks.end()) continue;
    const ModelTask& task = it->second;
    // One joiner after another.
    const bool told = task.newest && task.newest->epoch > epoch && task.joining == 0;
    regroup = regroup || task.leave || task.stop || told;
    leave += task.leave;
    stop = stop || task.stop;
  }
  for (const int seat : members) {
    if (!node_.world.tasks.contains(seat)) continue;
    ModelTask& task = node_.world.tasks.at(seat);
    if (task.phase != ModelTask::kTraining || task.epoch != epoch) continue;
    task.reduced = true;
    task.regroup = regroup;
    task.hurries = stop || leave > 0;
    CheckState(seat, step);
    task.goes = task.leave || task.stop || leave == static_cast<int>(members.size());
    task.parts = options_.slices && (stop || leave > 0);
    if (task.parts && stop) task.goes = true;
  }
  OnReduced(epoch, step);
}

bool Explorer::Leads(int seat, uint64_t epoch) const {
  const std::vector<int>& members = MembersOf(epoch);
  return !members.empty() && members[0] == seat;
}

void Explorer::ApplyStep(int seat) {
  ModelTask& task = node_.world.tasks.at(seat);
  OnApplied(task.epoch, task.place);
  task.reduced = false;
  ++task.place;
  TakePiece(task);
  node_.world.best = std::max(node_.world.best, task.place);
  if (Leads(seat, task.epoch)) {
    ModelReport report;
    report.step = task.place;
    report.epoch = task.epoch;
    const bool first = node_.world.epochs[task.epoch].first_step == task.place - 1;
    if (task.epoch > 1 && first) {
      report.kind = ModelReport::kRecovered;
      Say(seat, report);
    }
    if (!node_.world.progressed) {
      node_.world.progressed = true;
      report.kind = ModelReport::kProgress;
      Say(seat, report);
    }
  }
  if (task.joining > 0) return;  // behind the cut-over, if there is one
  if (task.place == options_.steps || !task.regroup) return;
  task.parting = task.parts;
  if (task.parting) return;
  if (task.goes) return End(seat, "CANCELLED");
  Listen(seat, task.epoch);
}

// A member is dead, or has left: what the watcher sees.
bool Explorer::PeerIsGone(int seat) const {
  const ModelTask& task = view_->tasks.at(seat);
  for (const int peer : MembersOf(task.epoch)) {
    const auto it = view_->tasks.find(peer);
    if (it == view_->tasks.end() || !it->second.alive()) return true;
    if (it->second.phase != ModelTask::kTraining || it->second.epoch != task.epoch) return true;
  }
  return false;
}

void Explorer::ExpandTask(int seat, const ModelTask& task) {
  const std::string name = "seat " + std::to_string(seat);
  Try("fault: " + name + " is killed", true, [&] { End(seat, "ABORTED", 9); });
  const bool computes = task.phase == ModelTask::kTraining && task.place < options_.steps &&
                        !task.reduced && !task.parting && !task.cuts_over && !task.hung;
  if (computes) {
    Try("fault: " + name + " loses its GPU", true, [&] { End(seat, kDeviceFailed); });
  }
  if (options_.sigterms && !task.leave && !task.hung) {
    Try(
        "fault: " + name + " gets SIGTERM", true, [&] { node_.world.tasks.at(seat).leave = true; },
        &World::drains);
  }
  if (task.hung) {
    Try(name + " hangs: its agent kills it", false, [&] { End(seat, "ABORTED", 9); });
    return;
  }
  Try("fault: " + name + " hangs", true, [&] { node_.world.tasks.at(seat).hung = true; });
  if (task.phase == ModelTask::kStarting) {
    Try(name + " starts and listens", false, [&] {
      ModelReport started;
      started.kind = ModelReport::kStarted;
      Say(seat, started);
      Listen(seat, 0, BehindCuts(seat, node_.world.tasks.at(seat).probe));
    });
    return;
  }
  if (task.phase == ModelTask::kListening) {
    if (task.stop || (task.leave && !HandsOver(task))) {
      return Try(name + " goes", false, [&] { End(seat, "CANCELLED"); });
    }
    if (!HasGroup(task)) {
      if (task.overtaken <= task.epoch) return;
      return Try(name + " lists itself anew", false, [&] { Listen(seat, task.overtaken); });
    }
    // Whether its peers have given up or not, it tries all of them, and says what it has found out.
    const std::set<int> cannot = BehindCuts(seat, task.newest->seats);
    if (!Reachable(*task.newest) || !cannot.empty()) {
      Try(name + " cannot join", false, [&] { Listen(seat, task.newest->epoch, cannot); });
    }
    return;
  }
  if (task.handed) {
    Try(name + " parts from the others", false,
        [&] { task.goes ? End(seat, "CANCELLED") : Listen(seat, task.epoch); });
  }
  if (task.reduced && (task.has_state || SourceIsThere(seat))) {
    Try(name + " applies the step", false, [&] { ApplyStep(seat); });
  }
  if (Parts(task)) {
    Try(name + " parts from the others", false,
        [&] { task.goes ? End(seat, "CANCELLED") : Listen(seat, task.epoch); });
  }
  if (IsTold(task)) Try(name + " leaves as it is told", false, [&] { Listen(seat, task.epoch); });
  if (task.place == options_.steps && task.joining == 0) {
    const std::vector<int>& members = MembersOf(task.epoch);
    const auto leader = base_->world.tasks.find(members.empty() ? seat : members[0]);
    const bool stored = leader != base_->world.tasks.end() &&
                        leader->second.phase == ModelTask::kOver && Ended(leader->first);
    // The leader stores the model once all have measured it, which takes all of them.
    const bool all = std::all_of(members.begin(), members.end(), [&](int member) {
      const ModelTask& other = base_->world.tasks.at(member);
      return other.phase == ModelTask::kTraining && other.epoch == task.epoch && !other.hung &&
             other.place == options_.steps && other.joining == 0;
    });
    if ((Leads(seat, task.epoch) && all) || stored) {
      Try(name + " is done", false, [&] { End(seat, "OK"); });
      return;
    }
  }
  if (!BehindCuts(seat, MembersOf(task.epoch)).empty()) {
    Try(name + " sees that a cable is cut", false, [&] { Listen(seat, task.epoch); });
  }
  if (PeerIsGone(seat)) {
    Try(name + " sees that a peer is gone", false, [&] { Listen(seat, task.epoch); });
  }
}

// The seat's last word is that it is done, said or about to be.
bool Explorer::Ended(int seat) const {
  const ModelTask& task = base_->world.tasks.at(seat);
  const ModelWorker& worker = base_->world.workers[static_cast<size_t>(task.worker)];
  for (const std::vector<ReportPtr>* words : {&worker.reports, &worker.held}) {
    for (const ReportPtr& report : *words) {
      if (report->seat == seat && report->kind == ModelReport::kFinished) {
        return report->code == "OK";
      }
    }
  }
  const auto known = base_->coordinator->tasks.find(seat);
  return known != base_->coordinator->tasks.end() && known->second.code() == "OK";
}

void Explorer::ExpandGroups() {
  std::set<std::string> met;
  std::set<std::pair<uint64_t, int>> steps;
  for (const auto& [seat, task] : base_->world.tasks) {
    if (!task.alive() || task.hung) continue;
    if (task.phase == ModelTask::kTraining && task.parting && !task.handed) {
      if (CanHandOver(task.epoch) && met.insert("part " + std::to_string(task.epoch)).second) {
        Try(fmt::format("epoch {} parts", task.epoch), false, [&] { HandOver(task.epoch); });
      }
    } else if (task.cuts_over) {
      if (CanCutOver(task.epoch) && met.insert("cut " + std::to_string(task.epoch)).second) {
        Try(fmt::format("epoch {} cuts over", task.epoch), false, [&] { CutOver(task.epoch); });
      }
    } else if (task.phase == ModelTask::kTraining && task.place < options_.steps) {
      steps.emplace(task.epoch, task.place);
    }
    if (!HasGroup(task) || !Reachable(*task.newest)) continue;
    const ModelOrder& group = *task.newest;
    const bool all = std::all_of(group.seats.begin(), group.seats.end(), [&](int member) {
      const ModelTask& other = base_->world.tasks.at(member);
      return HasGroup(other) && !other.hung && !other.stop && (!other.leave || HandsOver(other)) &&
             other.newest->epoch == group.epoch;
    });
    if (!all || !Whole(group.seats) || !met.insert(std::to_string(group.epoch)).second) continue;
    Try(fmt::format("epoch {} meets", group.epoch), false, [&] { Assemble(group); });
  }
  for (const auto& [epoch, step] : steps) {
    if (!CanReduce(epoch, step)) continue;
    Try(fmt::format("epoch {} reduces step {}", epoch, step), false,
        [&, epoch = epoch, step = step] { Reduce(epoch, step); });
  }
}
}  // namespace lepton::scheduler::model
