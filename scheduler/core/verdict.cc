#include "scheduler/core/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "scheduler/core/elastic.h"

namespace lepton::scheduler {
namespace {

// Its process did not end by itself, or ended since it cannot be trusted.
bool WasTaken(const Task& task) {
  return task.state() == TASK_LOST || task.signal() != 0 || task.has_diverged() ||
         LostItsDevice(task);
}

bool EndedFatally(const Task& task) {
  return task.state() == TASK_FINISHED && task.signal() == 0 && !task.has_diverged() &&
         IsFatal(StatusCodeFromName(task.code()));
}

// Its process came to its end, and went through all that it does there.
bool ExitedInOrder(const Task& task) {
  constexpr int kFailed = 1;
  return task.exit_status() <= kFailed;
}

// Why a gang was stopped that had better gone on, though no one rank is to blame.
bool Broke(const std::string& stop_code) {
  static constexpr std::string_view kCodes[] = {"START_TIMEOUT", "LOG_POLICY",  "GROUP_BROKEN",
                                                "RANK_LEAVES",   "UNREACHABLE", "CORRUPT"};
  return std::find(std::begin(kCodes), std::end(kCodes), stop_code) != std::end(kCodes);
}

// What a rank says when it is its peer that died.
bool BlamesPeers(const Task& task) {
  const StatusCode code = StatusCodeFromName(task.code());
  return code == StatusCode::kAborted || code == StatusCode::kUnavailable ||
         code == StatusCode::kDeadlineExceeded;
}

// A member's own error, which is neither what a death does to its peers nor that it was told to go.
bool FailedByItself(const Task& task) {
  return task.state() == TASK_FINISHED && !EndedWell(task) && !WasTaken(task) && !task.refused() &&
         !BlamesPeers(task) && task.code() != StatusCodeName(StatusCode::kCancelled);
}

// Of a gang whose group broke: the member that broke it, if its last report says so. Its peers tell
// of the end of their group first.
const Task* WhoBroke(const Gang& gang) {
  const Task* failed = nullptr;
  for (const Task& task : gang.tasks()) {
    if (!IsMember(gang, task) || !FailedByItself(task)) continue;
    if (EndedFatally(task)) return &task;
    if (failed == nullptr) failed = &task;
  }
  return failed;
}

}  // namespace

bool EndedWell(const Task& task) {
  return task.state() == TASK_FINISHED && task.code() == "OK" && task.signal() == 0;
}

bool LostItsDevice(const Task& task) {
  return task.state() != TASK_LOST && task.code() == StatusCodeName(StatusCode::kDeviceFailed);
}

const Task* FirstWhere(const Gang& gang, bool (*is)(const Task&)) {
  for (const Task& task : gang.tasks()) {
    if (is(task)) return &task;
  }
  return nullptr;
}

std::string Describe(const Task& task) {
  std::string what = fmt::format("rank {} on worker {}: ", task.rank(), task.worker_id());
  if (task.state() == TASK_LOST) return what + task.message();
  if (task.silent_since_ms() > 0) return what + task.message();
  if (task.signal() != 0) return what + fmt::format("killed by signal {}", task.signal());
  return what + fmt::format("{}: {}", task.code(), task.message());
}

Verdict JudgeTask(const Task& task) {
  using Kind = Verdict::Kind;
  const std::string code = task.code().empty() ? "INTERNAL" : task.code();
  if (task.state() == TASK_LOST) return {Kind::kWorkerFault, "WORKER_LOST", code, Describe(task)};
  if (task.refused()) return {Kind::kRefused, "REFUSED", code, Describe(task)};
  if (task.silent_since_ms() > 0) return {Kind::kWorkerFault, "HUNG", "ABORTED", Describe(task)};
  if (task.signal() != 0) return {Kind::kWorkerFault, "TASK_KILLED", "ABORTED", Describe(task)};
  if (task.has_diverged()) {
    const bool others_go_on = task.diverged().agreeing() > 0;
    return {others_go_on ? Kind::kWorkerFault : Kind::kFatal, "DIVERGED", code, Describe(task)};
  }
  if (LostItsDevice(task)) {
    return {Kind::kWorkerFault, code, "UNAVAILABLE", Describe(task)};
  }
  if (EndedFatally(task)) return {Kind::kFatal, "TASK_FAILED", code, Describe(task)};
  // It was told to stop, though not by us: its worker is going away.
  if (code == "CANCELLED") return {Kind::kWorkerFault, "WORKER_STOPPED", "ABORTED", Describe(task)};
  return {Kind::kTaskFault, "TASK_FAILED", code == "OK" ? "INTERNAL" : code, Describe(task)};
}

bool OthersMayGoOn(const Verdict& verdict) {
  return verdict.kind == Verdict::Kind::kWorkerFault || verdict.kind == Verdict::Kind::kRefused ||
         verdict.error_code == StatusCodeName(StatusCode::kResourceExhausted);
}

bool IsFatal(StatusCode code) {
  return code == StatusCode::kInvalidArgument || code == StatusCode::kFailedPrecondition ||
         code == StatusCode::kDataLoss;
}

bool LeftMpiOpen(const Gang& gang) {
  if (!gang.mpi()) return false;
  // They listen behind MPI_Init, through which they come together.
  const bool began = FirstWhere(gang, [](const Task& task) { return task.has_endpoint(); });
  return began && std::any_of(gang.tasks().begin(), gang.tasks().end(), [&](const Task& task) {
           // Who finds its group broken ends without MPI_Finalize, as does one that stops without
           // the others. It comes behind a task's last word.
           return WasTaken(task) || BlamesPeers(task) || !ExitedInOrder(task) ||
                  task.code() != gang.tasks(0).code();
         });
}

Verdict JudgeGang(const Gang& gang) {
  using Kind = Verdict::Kind;
  if (gang.has_result()) return {Kind::kSucceeded, "SUCCEEDED", "", ""};
  if (gang.stop_code() == "DRAIN") return {Kind::kMoved, "DRAIN", "", gang.stop_cause()};
  const bool ours = gang.state() == GANG_STOPPING && gang.trigger_rank() < 0;
  if (ours && gang.stop_code() == "GROUP_BROKEN") {
    if (const Task* member = WhoBroke(gang)) return JudgeTask(*member);
  }
  if (ours && Broke(gang.stop_code())) {
    return {Kind::kWorkerFault, gang.stop_code(), "UNAVAILABLE", gang.stop_cause()};
  }
  if (ours) return {Kind::kStopped, gang.stop_code(), "CANCELLED", gang.stop_cause()};
  const Task* trigger = gang.trigger_rank() >= 0 ? &gang.tasks(gang.trigger_rank()) : nullptr;
  if (trigger == nullptr) {
    // The gang went on without those that were refused: they did not end it if another did.
    trigger =
        FirstWhere(gang, [](const Task& task) { return !EndedWell(task) && !task.refused(); });
  }
  if (trigger == nullptr)
    trigger = FirstWhere(gang, [](const Task& task) { return task.refused(); });
  if (trigger == nullptr) trigger = &gang.tasks(0);
  // A rank that blames its peers often reports before the peer that is to blame.
  if (!WasTaken(*trigger) && !trigger->refused() && BlamesPeers(*trigger)) {
    if (const Task* taken = FirstWhere(gang, &WasTaken)) trigger = taken;
    if (const Task* fatal = FirstWhere(gang, &EndedFatally); fatal && !WasTaken(*trigger)) {
      trigger = fatal;
    }
  }
  return JudgeTask(*trigger);
}

}  // namespace lepton::scheduler
