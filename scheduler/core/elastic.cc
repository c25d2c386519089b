#include "scheduler/core/elastic.h"

#include <algorithm>
#include <chrono>

#include "scheduler/core/index.h"
#include "scheduler/core/verdict.h"

namespace lepton::scheduler {

bool IsTraining(const spec::JobSpec& spec) {
  return spec.kind == spec::JobKind::kTrain || spec.kind == spec::JobKind::kDistill ||
         spec.kind == spec::JobKind::kTune;
}

bool IsSharded(const spec::JobSpec& spec) {
  return spec.kind == spec::JobKind::kBatch;
}

bool IsElastic(const spec::JobSpec& spec) {
  if (IsSharded(spec)) return spec.elastic.recovery == "in_place";
  return IsTraining(spec) && spec.elastic.recovery == "in_place" &&
         spec.resources.max_workers > 1 &&
         spec.collectives != "mpi";  // its processes are those that it began with
}

bool IsMember(const Gang& gang, const Task& task) {
  return !gang.elastic() || std::find(gang.members().begin(), gang.members().end(), task.rank()) !=
                                gang.members().end();
}

bool IsLeader(const Gang& gang, const Task& task) {
  return task.rank() == (gang.members().empty() ? 0 : gang.members(0));
}

bool Goes(const Gang& gang) {
  return gang.elastic() && gang.state() != GANG_STOPPING && !gang.has_result();
}

bool IsUp(const Task& task) {
  return IsAlive(task) && !task.gone();
}

bool IsThrough(const Task& task) {
  return task.gone() && task.signal() == 0 && task.code() == StatusCodeName(StatusCode::kOk);
}

bool IsAwaited(const Task& task) {
  return IsAlive(task) && task.gone() && (task.saved() || !OthersMayGoOn(JudgeTask(task)));
}

bool MayHaveState(const Task& task) {
  return !task.joins() || task.group_epoch() > 0;
}

bool IsListening(const Task& task) {
  if (!IsUp(task)) return false;
  return task.takes_shards() || (task.has_endpoint() && task.left_epoch() >= task.group_epoch());
}

int64_t BudgetMs(const spec::JobSpec& spec) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(spec.elastic.recovery_budget)
      .count();
}

int64_t FormingDeadline(const Gang& gang, const Task& member, int64_t budget_ms) {
  if (!gang.forming() || gang.forming_ms() == 0) return 0;
  return std::max(gang.forming_ms(), member.busy_ms()) + budget_ms;
}

}  // namespace lepton::scheduler
