// Tasks of an elastic gang that are told to go, one by one or all together (docs/elastic.md,
// "Leaving and joining").
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {

// Its ranks each have a part of the training state, and only two of them the same (parallel.zero).
bool Turn::HoldsSlices(const Gang& gang) const {
  return gang.elastic() && !gang.job_id().empty() &&
         state_.Spec(JobId(gang.job_id())).parallel.zero > 0;
}

// Those that stay are joiners which get the state in the group that forms, from one that leaves.
bool Turn::StateLeaves(const Gang& gang) const {
  if (gang.sharded() || !gang.forming()) return false;
  bool stays = false;
  for (const uint32_t seat : gang.members()) {
    const Task& task = gang.tasks(static_cast<int>(seat));
    if (!IsUp(task) || task.leaving()) continue;
    if (MayHaveState(task)) return false;
    stays = true;
  }
  return stays;
}

// Of the next epoch. Ranks that leave are members once more where they have slices to hand over, or
// all of the state while those that stay wait to get it.
std::vector<uint32_t> Turn::NextMembers(const Gang& gang) const {
  const bool needed = HoldsSlices(gang) || StateLeaves(gang);
  std::vector<uint32_t> members;
  for (const uint32_t seat : gang.members()) {
    const Task& task = gang.tasks(static_cast<int>(seat));
    const bool goes = needed ? task.leaves_at_once() : task.leaving();
    if ((IsUp(task) || IsAwaited(task)) && !goes) members.push_back(seat);
  }
  return members;
}

// The step in flight, and with slices a meeting and what is handed over: a drain that takes longer
// than the budget allows ends as a death does.
uint32_t Turn::LeaveGraceMs(const Gang& gang) const {
  if (!gang.elastic() || gang.sharded()) return options_.stop_grace_ms;
  const int64_t budget = BudgetMs(state_.Spec(JobId(gang.job_id())));
  return std::max(options_.stop_grace_ms, static_cast<uint32_t>(budget));
}

bool Turn::LetLeave(const std::string& gang_id, const WorkerId& worker, const std::string& cause) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (!Goes(gang) || gang.state() == GANG_STARTING) return false;
  if (gang.winds_down()) return true;  // all of it goes
  const auto stays = [&](const Task& task) {
    return IsUp(task) && !task.leaving() && task.worker_id() != worker.str();
  };
  int staying = 0, waiting = 0;
  // With those that go the state would, where they do not hand it over.
  bool lost = !gang.sharded() && !HoldsSlices(gang);
  for (const Task& task : gang.tasks()) {
    if (!stays(task)) continue;
    ++(IsMember(gang, task) ? staying : waiting);
    lost = lost && !(IsMember(gang, task) && MayHaveState(task));
  }
  const int least = gang.sharded() ? 1 : state_.Spec(JobId(gang.job_id())).resources.min_workers;
  if (const int missing = least - staying; missing > 0 || lost) {
    // Joiners get it as they meet who leaves; a seat below the least starts still, which may take
    // long.
    const bool handed_over = missing <= 0 && staying > 0 && gang.forming();
    if (!HoldsSlices(gang) && !handed_over) return false;
    const int further = std::max(0, missing - waiting);
    const bool elsewhere =
        handed_over || (staying > 0 && gang.trial() < 0 &&
                        (further == 0 || !PlaceSeats(gang, further, further).workers.empty()));
    if (!elsewhere) {
      WindDown(gang_id, "DRAIN", cause, -1);
      return true;
    }
  }
  for (const Task& task : gang.tasks()) {
    if (!IsAlive(task) || task.worker_id() != worker.str() || task.leaving()) continue;
    TellToLeave(task, cause, /*at_once=*/false);
  }
  DealHands(gang_id, {});
  return true;
}

void Turn::LetGo(const std::string& gang_id, const wire::TaskEndpoint& endpoint) {
  const Gang& gang = state_.gangs.at(gang_id);
  for (const uint32_t seat : endpoint.left()) {
    if (static_cast<int>(seat) >= gang.tasks_size()) continue;
    const Task& task = gang.tasks(static_cast<int>(seat));
    if (!IsAlive(task) || task.leaves_at_once()) continue;
    TellToLeave(task, "others hold what it held", /*at_once=*/true);
  }
}

// Not Stop: a stopped gang forms no more groups, and outside a group no rank has the whole state.
void Turn::WindDown(const std::string& gang_id, const std::string& stop_code,
                    const std::string& cause, int trigger_rank) {
  const Gang& gang = state_.gangs.at(gang_id);
  Record record;
  GangMoved& moved = *record.mutable_gang_moved();
  moved.set_gang_id(gang_id);
  moved.set_to(gang.state());
  moved.set_winds_down(true);
  moved.set_stop_code(stop_code);
  moved.set_stop_cause(cause);
  moved.set_trigger_rank(trigger_rank);
  Persist(std::move(record));
  for (const Task& task : gang.tasks()) {
    if (IsAlive(task) && !task.leaving()) TellToLeave(task, cause, /*at_once=*/false);
  }
}

void Turn::TellToLeave(const Task& task, const std::string& cause, bool at_once) {
  Record record;
  record.mutable_task_leaving()->set_task_id(task.id());
  record.mutable_task_leaving()->set_cause(cause);
  record.mutable_task_leaving()->set_at_once(at_once);
  Persist(std::move(record));
  SendLeave(task, cause);
}

// May be repeated. Who has the state that others wait for is told when the group has formed: before
// that it would go at once.
void Turn::SendLeave(const Task& task, const std::string& cause) {
  const Gang& gang = *state_.GangOfTask(task.id());
  const bool needed = !HoldsSlices(gang) && IsMember(gang, task) && StateLeaves(gang);
  if (needed && !task.leaves_at_once()) return;
  wire::StopTask order;
  order.set_task_id(task.id());
  order.set_grace_ms(LeaveGraceMs(gang));
  order.set_reason(cause);
  order.set_alone(true);
  order.set_at_once(task.leaves_at_once());
  effects_.Stop(WorkerId(task.worker_id()), order);
}

}  // namespace lepton::scheduler
