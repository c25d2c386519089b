// A gang that outlives its ranks: epochs, losses, leaves and joins. The protocol is in
// docs/decisions/elastic-epochs.md.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <set>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/reachability.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

// A member is through: the others will be in a moment.
bool IsAboutToEnd(const Gang& gang) {
  return std::any_of(gang.members().begin(), gang.members().end(), [&](uint32_t seat) {
    const Task& member = gang.tasks(static_cast<int>(seat));
    return EndedWell(member) || IsThrough(member);
  });
}

// Seats that ended before they were ever in a group, since one was.
struct JoinFailures {
  int all = 0;
  int refused = 0;  // of them: their workers had no place
  int64_t last_ms = 0;
  std::set<std::string> workers;
};

JoinFailures FailuresToJoin(const Gang& gang) {
  JoinFailures failures;
  for (auto task = gang.tasks().rbegin(); task != gang.tasks().rend(); ++task) {
    if (task->group_epoch() > 0) break;
    if (IsAlive(*task) || task->leaving()) continue;  // one that was sent away has not failed
    ++failures.all;
    failures.refused += task->refused();
    failures.workers.insert(task->worker_id());
    failures.last_ms = std::max(failures.last_ms, task->ended_ms());
  }
  return failures;
}

// Until when a seat must be up. Its gang's signs of life are its own too.
int64_t SeatDeadline(const Gang& gang, const Task& task, const ReactorOptions& options) {
  return std::max(task.placed_ms(), gang.alive_ms()) + options.start_timeout_ms;
}

}  // namespace

int64_t JoinRetryMs(const Gang& gang, const spec::JobSpec& spec, const ReactorOptions& options) {
  const JoinFailures failures = FailuresToJoin(gang);
  if (failures.all == 0) return 0;
  const bool hopeless = failures.all - failures.refused > spec.restart.max;
  const auto base = std::chrono::duration_cast<std::chrono::milliseconds>(spec.restart.backoff);
  const int64_t backoff = hopeless ? kHopelessTimes * options.backoff_cap_ms
                                   : BackoffMs(base.count(), failures.all, options.backoff_cap_ms);
  return failures.last_ms + std::max(backoff, failures.refused > 0 ? kRefusedRetryMs : 0);
}

int64_t ElasticTimer(const Gang& gang, const spec::JobSpec& spec, const ReactorOptions& options,
                     int64_t ticked_ms) {
  int64_t next = std::numeric_limits<int64_t>::max();
  auto at = [&](int64_t wall_ms) {
    if (wall_ms > ticked_ms) next = std::min(next, wall_ms);
  };
  if (!Goes(gang)) return next;
  for (const uint32_t seat : gang.members()) {
    const Task& member = gang.tasks(static_cast<int>(seat));
    if (IsUp(member) && !IsListening(member)) {
      at(FormingDeadline(gang, member, BudgetMs(spec)));
    }
  }
  at(JoinRetryMs(gang, spec, options));
  for (const Cut& cut : gang.cuts()) at(cut.retry_at_ms());
  for (const Task& task : gang.tasks()) {
    const bool starts = IsUp(task) && !task.has_endpoint() && !task.takes_shards();
    if (starts) at(SeatDeadline(gang, task, options));
  }
  return next;
}

void Turn::MakeElastic(GangPlan& plan) {
  plan.gang.set_elastic(true);
  plan.gang.set_epoch(1);
  plan.gang.set_forming(!plan.gang.sharded());
  for (uint32_t rank = 0; rank < plan.workers.size(); ++rank) plan.gang.add_members(rank);
}

// What is in the way of slots for a seat: a job that waits in line for them.
bool Turn::OthersWait(const std::string& device) const {
  const auto queue = state_.queues.find(device);
  if (queue == state_.queues.end()) return false;
  return std::any_of(queue->second.begin(), queue->second.end(), [&](const auto& key) {
    return state_.jobs.at(std::get<JobId>(key)).state() == JOB_QUEUED;
  });
}

placement::Placement Turn::PlaceSeats(const Gang& gang, int least, int most,
                                      const std::set<std::string>& avoided) const {
  const Job& job = state_.jobs.at(JobId(gang.job_id()));
  placement::GangRequest request = RequestOf(state_.Spec(JobId(job.id())), job);
  request.min_workers = least;
  request.max_workers = most;
  request.excluded.merge(WorkersBehindCuts(gang, now_));
  request.excluded.insert(avoided.begin(), avoided.end());
  std::vector<placement::Seat> seats = SeatsOf(state_, Away(DeviceOf(gang)));
  for (placement::Seat& seat : seats) {
    seat.gang_ranks = static_cast<uint32_t>(std::count_if(
        gang.tasks().begin(), gang.tasks().end(),
        [&](const Task& task) { return IsAlive(task) && task.worker_id() == seat.worker; }));
  }
  return placement::PlaceGang(seats, request);
}

std::vector<uint32_t> Turn::AddSeats(const std::string& gang_id, int least, int most,
                                     const std::set<std::string>& avoided) {
  const Gang& gang = state_.gangs.at(gang_id);
  const Job& job = state_.jobs.at(JobId(gang.job_id()));
  const uint32_t slots = RequestOf(state_.Spec(JobId(job.id())), job).slots;
  const placement::Placement placed = PlaceSeats(gang, least, most, avoided);
  std::vector<uint32_t> seats;
  for (const std::string& name : placed.workers) {
    const Worker& worker = state_.workers.at(WorkerId(name));
    Record record;
    record.mutable_seat_added()->set_gang_id(gang_id);
    Task& task = *record.mutable_seat_added()->mutable_task();
    task.set_rank(static_cast<uint32_t>(gang.tasks_size()));
    task.set_id(fmt::format("{}.r{}", gang_id, task.rank()));
    task.set_worker_id(worker.id());
    task.set_incarnation(worker.hello().incarnation());
    task.set_host(worker.hello().host());
    task.set_slots(slots);
    task.set_joins(true);
    seats.push_back(task.rank());
    Persist(std::move(record));
    SendStart(gang, gang.tasks(gang.tasks_size() - 1));
  }
  return seats;
}

void Turn::NewEpoch(const std::string& gang_id, const std::vector<uint32_t>& members,
                    const EpochChange& change) {
  const Gang& gang = state_.gangs.at(gang_id);
  Record record;
  GangRegrouped& regrouped = *record.mutable_gang_regrouped();
  regrouped.set_gang_id(gang_id);
  regrouped.set_epoch(gang.epoch() + 1);
  regrouped.mutable_members()->Add(members.begin(), members.end());
  regrouped.set_reason_code(change.reason_code);
  regrouped.set_cause(change.cause);
  regrouped.set_at_once(change.at_once);
  regrouped.set_fault(change.fault);
  regrouped.set_fault_ms(change.fault_ms > 0 ? change.fault_ms : now_);
  Persist(std::move(record));
  reactor_.dirty_ = true;  // who is a member says whether further seats are of use
  if (gang.sharded()) return DealHands(gang_id, {members.begin(), members.end()});
  for (const uint32_t seat : gang.members()) SendEpoch(gang, gang.tasks(static_cast<int>(seat)));
  MaybeForm(gang_id);
}

// The newest order that a member may have missed. Orders may be repeated: a task ignores those of
// an epoch that it knows.
void Turn::SendEpoch(const Gang& gang, const Task& task) {
  if (!Goes(gang) || !IsMember(gang, task) || !IsUp(task)) return;
  if (!gang.forming()) return SendGroup(gang, task);
  if (IsListening(task) || task.group_epoch() == 0) return;
  wire::TaskGroup order;
  order.set_task_id(task.id());
  order.set_epoch(gang.epoch());
  order.set_at_once(gang.forming_ms() > 0);
  effects_.SendGroup(WorkerId(task.worker_id()), order);
}

void Turn::MaybeForm(const std::string& gang_id) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (!Goes(gang) || !gang.forming()) return;
  for (const uint32_t seat : gang.members()) {
    const Task& member = gang.tasks(static_cast<int>(seat));
    // The order would not reach a worker that has not come back to this coordinator yet.
    if (!IsListening(member) || reactor_.unconfirmed_.contains(WorkerId(member.worker_id())))
      return;
  }
  if (PartUnreachable(gang_id)) return;
  Record record;
  record.mutable_gang_formed()->set_gang_id(gang_id);
  Persist(std::move(record));
  for (const uint32_t seat : gang.members()) {
    const Task& member = gang.tasks(static_cast<int>(seat));
    SendGroup(gang, member);
    if (member.leaving() && !HoldsSlices(gang)) SendLeave(member, "its worker is being drained");
  }
}

bool Turn::GoOnWithout(const std::string& gang_id, EpochChange change) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (!Goes(gang)) return false;
  std::vector<uint32_t> members = NextMembers(gang);
  if (members.size() == static_cast<size_t>(gang.members_size())) return true;  // not a member
  if (members.empty() && gang.sharded()) {  // those that are still getting ready take over
    for (const Task& task : gang.tasks()) {
      if (IsAlive(task) && !task.leaving()) members.push_back(task.rank());
    }
  }
  const bool lost = std::none_of(members.begin(), members.end(), [&](uint32_t seat) {
    return MayHaveState(gang.tasks(static_cast<int>(seat)));
  });
  if (members.empty() || (lost && !gang.sharded())) return false;
  const spec::JobSpec& spec = state_.Spec(JobId(gang.job_id()));
  // A survivor that told of a broken group before we knew why told of the same fault.
  if (gang.forming() && gang.regroup_reason() == "GROUP_BROKEN") change.fault = false;
  if (change.fault && gang.faults_in_row() + 1 > static_cast<uint32_t>(spec.restart.max)) {
    return false;
  }
  const auto staying = std::count_if(members.begin(), members.end(), [&](uint32_t seat) {
    return !gang.tasks(static_cast<int>(seat)).leaving();
  });
  const int missing = spec.resources.min_workers - static_cast<int>(staying);
  // Shards need no others: min_workers is for the start alone.
  if (missing > 0 && !gang.winds_down() && !gang.sharded()) {
    // With nobody who stays there is nobody to take the state to others.
    if (staying == 0 || !FillUp(gang_id, missing, &members)) {
      if (!HoldsSlices(gang)) return false;
      WindDown(gang_id, change.reason_code, change.cause, change.trigger_rank);
    }
  }
  NewEpoch(gang_id, members, change);
  return true;
}

bool Turn::FillUp(const std::string& gang_id, int missing, std::vector<uint32_t>* members) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (gang.trial() >= 0) return false;
  std::vector<uint32_t> seats;
  for (const Task& task : gang.tasks()) {
    const bool waits = IsUp(task) && !task.leaving() && !IsMember(gang, task);
    if (waits && static_cast<int>(seats.size()) < missing) seats.push_back(task.rank());
  }
  const int further = missing - static_cast<int>(seats.size());
  if (further > 0) {
    const std::vector<uint32_t> added = AddSeats(gang_id, further, further);
    if (added.empty()) return false;
    seats.insert(seats.end(), added.begin(), added.end());
  }
  members->insert(members->end(), seats.begin(), seats.end());
  return true;
}

void Turn::OnListening(const std::string& gang_id, const Task& task,
                       const wire::TaskEndpoint& endpoint) {
  const std::string& cause = endpoint.cause();
  const Gang& gang = state_.gangs.at(gang_id);
  // The work is done, or the gang is being stopped: nobody will come.
  if (gang.has_result()) return SendStop(task, 0, "the gang has finished");
  if (!Goes(gang)) return;
  LetGo(gang_id, endpoint);
  if (!gang.forming() && IsMember(gang, task) && task.left_epoch() >= gang.epoch()) {
    EpochChange change;
    change.fault_ms = endpoint.left_wall_ms();
    const std::vector<uint32_t> members = NextMembers(gang);
    const bool leaves =
        std::any_of(gang.members().begin(), gang.members().end(),
                    [&](uint32_t seat) { return gang.tasks(static_cast<int>(seat)).leaving(); });
    const bool planned =
        endpoint.planned() || leaves || members.size() < static_cast<size_t>(gang.members_size());
    change.reason_code = endpoint.corrupt() ? "CORRUPT" : planned ? "RANK_LEAVES" : "GROUP_BROKEN";
    change.cause = cause;
    const int least =
        gang.winds_down() ? 1 : state_.Spec(JobId(gang.job_id())).resources.min_workers;
    if (static_cast<int>(members.size()) < least) {
      if (!GoOnWithout(gang_id, change)) BreakGang(gang_id, change.reason_code, cause, -1);
      return;
    }
    // A meeting that failed for a cable is no further fault: it shows who should go for the first.
    change.fault = !planned && endpoint.unreachable().empty();
    const int max = state_.Spec(JobId(gang.job_id())).restart.max;
    if (change.fault && gang.faults_in_row() + 1 > static_cast<uint32_t>(max)) {
      return BreakGang(gang_id, "GROUP_BROKEN", cause, -1);
    }
    NewEpoch(gang_id, members, change);
  } else if (gang.forming() &&
             NextMembers(gang).size() < static_cast<size_t>(gang.members_size())) {
    EpochChange change;
    change.reason_code = "RANK_LEAVES";
    change.cause = cause;
    change.fault = false;
    if (!GoOnWithout(gang_id, change)) BreakGang(gang_id, change.reason_code, cause, -1);
  } else {
    MaybeForm(gang_id);
    LetJoin(gang_id);
  }
  MaybeRunning(gang_id);
}

// Seats that are ready become members, unless a recovery is under way, or the work is all but done.
void Turn::LetJoin(const std::string& gang_id) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (!Goes(gang) || gang.forming() || gang.has_recovery() || !gang.progressed()) return;
  if (gang.sharded()) return;  // each joins by itself
  if (IsAboutToEnd(gang) || gang.winds_down()) return;
  std::vector<uint32_t> members = NextMembers(gang);
  const size_t before = members.size();
  std::string cause;
  for (int seat = 0; seat < gang.tasks_size(); ++seat) {
    const Task& task = gang.tasks(seat);
    if (IsMember(gang, task) || !IsListening(task) || task.leaving()) continue;
    if (RefuseUnreachable(gang_id, task.rank())) continue;
    members.push_back(task.rank());
    cause += fmt::format("{}rank {} on worker {}", cause.empty() ? "" : ", ", task.rank(),
                         task.worker_id());
  }
  if (members.size() == before) return;
  EpochChange change;
  change.reason_code = "RANK_JOINS";
  change.cause = cause + " joins";
  change.at_once = false;
  change.fault = false;
  NewEpoch(gang_id, members, change);
}

// Gangs below their most workers take free slots that nobody waits for.
void Turn::ServeJoins() {
  std::vector<std::string> ids;
  for (const auto& [id, gang] : state_.gangs) {
    // A trial loses ranks, and gets no further ones: slots are for other trials.
    if (gang.trial() >= 0 || gang.winds_down()) continue;
    if (Goes(gang) && gang.state() == GANG_RUNNING && gang.progressed()) ids.push_back(id);
  }
  for (const std::string& id : ids) {
    const Gang& gang = state_.gangs.at(id);
    const JobId job(gang.job_id());
    if (!state_.active.contains(job) || state_.jobs.at(job).state() != JOB_RUNNING) continue;
    const spec::JobSpec& spec = state_.Spec(job);
    const auto seats = std::count_if(gang.tasks().begin(), gang.tasks().end(),
                                     [](const Task& t) { return IsUp(t) && !t.leaving(); });
    const int wanted = spec.resources.max_workers - static_cast<int>(seats);
    if (wanted <= 0 || IsAboutToEnd(gang)) continue;
    if (OthersWait(spec.resources.device)) continue;
    const Shards& shards = state_.jobs.at(job).shards();
    const int undone = shards.results_size() - static_cast<int>(shards.done());
    if (gang.sharded() && undone <= seats) continue;  // there is nothing for another
    // Whose seats failed waits for its turn, and is the last choice then.
    const int64_t retry_ms = JoinRetryMs(gang, spec, options_);
    if (!AddSeats(id, 1, wanted, FailuresToJoin(gang).workers).empty()) continue;
    if (now_ >= retry_ms) AddSeats(id, 1, wanted);
  }
}

// Members that do not list themselves in time are killed: they hang, or are cut off.
void Turn::TickElastic(const std::string& gang_id) {
  auto it = state_.gangs.find(gang_id);
  if (it == state_.gangs.end() || !Goes(it->second)) return;
  const Gang& gang = it->second;
  const int64_t budget = BudgetMs(state_.Spec(JobId(gang.job_id())));
  std::vector<Task> late;
  for (const Task& task : gang.tasks()) {
    if (!IsUp(task) || IsListening(task)) continue;
    const bool starting = task.group_epoch() == 0;
    const bool member = IsMember(gang, task);
    const int64_t deadline = FormingDeadline(gang, task, budget);
    if (starting ? gang.state() != GANG_STARTING && now_ >= SeatDeadline(gang, task, options_)
                 : member && deadline > 0 && now_ >= deadline) {
      late.push_back(task);
    }
  }
  for (const Task& task : late) {
    SendStop(task, 0, "it did not answer within the recovery budget");
    LoseTask(task.id(), "it did not answer within the recovery budget");
  }
  if (!late.empty()) return AfterLoss({gang_id}, "HUNG");
  LetJoin(gang_id);
}

}  // namespace lepton::scheduler
