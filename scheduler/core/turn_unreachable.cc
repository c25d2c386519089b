// Workers of an elastic gang that cannot reach each other, though all reach the coordinator: who
// goes, and when it may come back (docs/elastic.md, "A cut between two workers").
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/reachability.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

// "rank 2 on worker w2 cannot reach rank 1 on worker w1 (no connection ...)", from either end.
std::string DescribeCut(const Gang& gang, const SeatPair& pair) {
  std::string text;
  for (const auto& [from, to] : {pair, SeatPair{pair.second, pair.first}}) {
    const Task& task = gang.tasks(static_cast<int>(from));
    for (const wire::Unreachable& said : task.unreachable()) {
      if (said.seat() != to) continue;
      text += fmt::format("{}rank {} on worker {} cannot reach rank {} on worker {} ({})",
                          text.empty() ? "" : ", and ", from, task.worker_id(), to,
                          gang.tasks(static_cast<int>(to)).worker_id(), said.why());
    }
  }
  return text;
}

Cut CutOf(const Gang& gang, const SeatPair& pair) {
  Cut cut;
  std::string a = gang.tasks(static_cast<int>(pair.first)).worker_id();
  std::string b = gang.tasks(static_cast<int>(pair.second)).worker_id();
  if (b < a) std::swap(a, b);
  cut.set_worker_a(std::move(a));
  cut.set_worker_b(std::move(b));
  return cut;
}

}  // namespace

void Turn::RecordCuts(const std::string& gang_id, const std::vector<SeatPair>& pairs,
                      const std::vector<uint32_t>& leaving) {
  const Gang& gang = state_.gangs.at(gang_id);
  const spec::JobSpec& spec = state_.Spec(JobId(gang.job_id()));
  // The link gets at least a budget of rest: each try costs a start.
  const auto backoff = std::chrono::duration_cast<std::chrono::milliseconds>(spec.restart.backoff);
  const int64_t base = std::max<int64_t>(backoff.count(), BudgetMs(spec));
  Record record;
  LinksCut& found = *record.mutable_links_cut();
  found.set_gang_id(gang_id);
  std::string cause;
  int64_t retry = 0;
  for (const SeatPair& pair : pairs) {
    Cut cut = CutOf(gang, pair);
    for (const Cut& known : gang.cuts()) {
      if (SamePair(known, cut)) cut.set_failures(known.failures());
    }
    cut.set_failures(cut.failures() + 1);
    // Each try leaves a task in the job's record: what stays as it is is not tried twice a minute.
    const bool hopeless = cut.failures() > static_cast<uint32_t>(std::max(spec.restart.max, 0));
    const int64_t pause =
        hopeless ? kHopelessTimes * options_.backoff_cap_ms
                 : BackoffMs(base, static_cast<int>(cut.failures()), options_.backoff_cap_ms);
    cut.set_retry_at_ms(now_ + pause);
    retry = std::max(retry, pause);
    cause += (cause.empty() ? "" : "; ") + DescribeCut(gang, pair);
    *found.add_cuts() = std::move(cut);
  }
  cause += ": ";
  for (const uint32_t seat : leaving) {
    cause += fmt::format("{}rank {} on worker {}", seat == leaving.front() ? "" : ", ", seat,
                         gang.tasks(static_cast<int>(seat)).worker_id());
  }
  cause += fmt::format(" leaves, and may try again in {} ms", retry);
  found.set_cause(cause);
  Persist(std::move(record));
}

bool Turn::PartUnreachable(const std::string& gang_id) {
  const Gang& gang = state_.gangs.at(gang_id);
  const std::set<SeatPair> pairs = CutPairs(gang);
  if (pairs.empty()) return false;
  const std::vector<uint32_t> members(gang.members().begin(), gang.members().end());
  const std::vector<uint32_t> staying = LargestReachable(members, pairs);
  std::vector<uint32_t> leaving;
  for (const uint32_t seat : members) {
    if (std::find(staying.begin(), staying.end(), seat) == staying.end()) leaving.push_back(seat);
  }
  RecordCuts(gang_id, {pairs.begin(), pairs.end()}, leaving);
  EpochChange change;
  change.reason_code = "UNREACHABLE";
  change.fault = false;  // of which the group broke was counted then
  for (const SeatPair& pair : pairs) {
    change.cause += (change.cause.empty() ? "" : "; ") + DescribeCut(gang, pair);
  }
  for (const uint32_t seat : leaving) {
    TellToLeave(gang.tasks(static_cast<int>(seat)), "its peers cannot be reached from it",
                /*at_once=*/true);
  }
  if (!GoOnWithout(gang_id, change)) {
    BreakGang(gang_id, change.reason_code, change.cause, -1);
  }
  return true;
}

bool Turn::RefuseUnreachable(const std::string& gang_id, uint32_t seat) {
  const Gang& gang = state_.gangs.at(gang_id);
  const Task& task = gang.tasks(static_cast<int>(seat));
  std::vector<SeatPair> pairs;
  for (const wire::Unreachable& other : task.unreachable()) {
    const bool there = std::cmp_less(other.seat(), gang.tasks_size()) &&
                       IsMember(gang, gang.tasks(static_cast<int>(other.seat()))) &&
                       IsUp(gang.tasks(static_cast<int>(other.seat())));
    if (there) pairs.emplace_back(std::min(seat, other.seat()), std::max(seat, other.seat()));
  }
  if (pairs.empty()) return false;
  RecordCuts(gang_id, pairs, {seat});
  TellToLeave(task, "a member of its gang cannot be reached from it", /*at_once=*/true);
  return true;
}

}  // namespace lepton::scheduler
