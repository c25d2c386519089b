// What becomes of an elastic gang's membership: epochs, seats, and what recoveries cost.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/reachability.h"

namespace lepton::scheduler {
namespace {

constexpr int kRecoveriesKept = 100;

std::string Megabytes(double rate) {
  return rate < 1e6 ? fmt::format("{:.3f} MB/s", rate / 1e6)
                    : fmt::format("{:.1f} MB/s", rate / 1e6);
}

std::string SlowLinkText(const Task& from, const Task& to, const wire::SlowLink& link) {
  if (link.every()) {
    return fmt::format(
        "all links of rank {} on worker {} are slow: the one from rank {} on worker "
        "{} gives {}, those among others {}",
        to.rank(), to.worker_id(), from.rank(), from.worker_id(), Megabytes(link.rate()),
        Megabytes(link.others()));
  }
  return fmt::format(
      "the link from rank {} on worker {} to rank {} on worker {} is slow: it gives "
      "{}, that rank's others {}",
      from.rank(), from.worker_id(), to.rank(), to.worker_id(), Megabytes(link.rate()),
      Megabytes(link.others()));
}

}  // namespace

Event Applier::MembershipEvent(const Gang& gang, const std::string& from, const std::string& to) {
  Event event;
  event.set_type("gang");
  event.set_subject(gang.id());
  event.set_from(from);
  event.set_to(to);
  event.set_attempt(gang.attempt());
  event.set_trial(-1);
  return event;
}

Status Applier::Regrouped(const GangRegrouped& change) {
  Gang* gang = FindGang(change.gang_id());
  if (gang == nullptr) return NotThere("gang", change.gang_id());
  if (change.epoch() != gang->epoch() + 1 || change.members().empty()) {
    return DataLoss(fmt::format("record {}: epoch {} of gang {} follows {}", record_.seq(),
                                change.epoch(), gang->id(), gang->epoch()));
  }
  if (gang->sharded()) {
    RegroupSharded(*gang, change);
    return Status::Ok();
  }
  // One ledger entry from the first change until a group commits; its cause is the first that we
  // know of better than that the group broke.
  Recovery& open = *gang->mutable_recovery();
  if (open.reason_code().empty() || open.reason_code() == "RANK_JOINS") {
    open.set_fault_ms(change.fault_ms());
    open.clear_detected_ms();  // who left the group for the join had not seen the fault
    open.clear_agreed_ms();
  }
  if (open.reason_code().empty() || open.reason_code() == "RANK_JOINS" ||
      open.reason_code() == "GROUP_BROKEN") {
    open.set_reason_code(change.reason_code());
    open.set_cause(change.cause());
    open.set_fault_ms(std::min(open.fault_ms(), change.fault_ms()));
  }
  const bool told_by_a_survivor = change.reason_code() == "GROUP_BROKEN" ||
                                  change.reason_code() == "RANK_LEAVES" ||
                                  change.reason_code() == "CORRUPT";
  if (told_by_a_survivor && open.detected_ms() == 0) open.set_detected_ms(change.fault_ms());
  gang->set_epoch(change.epoch());
  *gang->mutable_members() = change.members();
  gang->set_forming(true);
  gang->set_regroup_reason(change.reason_code());
  gang->set_forming_ms(change.at_once() ? record_.wall_ms() : 0);
  if (change.fault()) gang->set_faults_in_row(gang->faults_in_row() + 1);
  // The meeting that showed who must go was broken by what had broken the group before.
  if (change.reason_code() == "UNREACHABLE" && gang->faults_in_row() > 1) {
    gang->set_faults_in_row(gang->faults_in_row() - 1);
  }
  Event event = MembershipEvent(*gang, "RUNNING", "REGROUPING");
  event.set_reason_code(change.reason_code());
  event.set_cause(fmt::format("epoch {} with {} ranks: {}", change.epoch(), change.members_size(),
                              change.cause()));
  Happened(std::move(event), FindJob(gang->job_id()));
  return Status::Ok();
}

Status Applier::Formed(const GangFormed& formed) {
  Gang* gang = FindGang(formed.gang_id());
  if (gang == nullptr) return NotThere("gang", formed.gang_id());
  gang->set_forming(false);
  gang->set_forming_ms(0);
  for (Task& task : *gang->mutable_tasks()) {
    if (IsMember(*gang, task)) task.set_group_epoch(gang->epoch());
  }
  if (gang->has_recovery()) gang->mutable_recovery()->set_agreed_ms(record_.wall_ms());
  return Status::Ok();
}

Status Applier::CutOff(const LinksCut& found) {
  Gang* gang = FindGang(found.gang_id());
  if (gang == nullptr) return NotThere("gang", found.gang_id());
  for (const Cut& cut : found.cuts()) {
    const auto known = std::find_if(gang->mutable_cuts()->begin(), gang->mutable_cuts()->end(),
                                    [&](const Cut& old) { return SamePair(old, cut); });
    (known == gang->mutable_cuts()->end() ? *gang->add_cuts() : *known) = cut;
  }
  Event event = MembershipEvent(*gang, "RUNNING", "RUNNING");
  event.set_reason_code("UNREACHABLE");
  event.set_cause(found.cause());
  Happened(std::move(event), FindJob(gang->job_id()));
  return Status::Ok();
}

Status Applier::Added(const SeatAdded& added) {
  Gang* gang = FindGang(added.gang_id());
  if (gang == nullptr) return NotThere("gang", added.gang_id());
  Task& task = *gang->add_tasks();
  task = added.task();
  task.set_state(TASK_PLACED);
  task.set_placed_ms(record_.wall_ms());
  IndexTask(state_, *gang, task);
  return Status::Ok();
}

Status Applier::Leaving(const TaskLeaving& leaving) {
  auto gang_id = state_.gang_of_task.find(leaving.task_id());
  Gang* gang = gang_id == state_.gang_of_task.end() ? nullptr : FindGang(gang_id->second);
  if (gang == nullptr) return NotThere("task", leaving.task_id());
  for (Task& task : *gang->mutable_tasks()) {
    if (task.id() != leaving.task_id()) continue;
    task.set_leaving(true);
    task.set_leaves_at_once(task.leaves_at_once() || leaving.at_once());
  }
  return Status::Ok();
}

void Applier::OnEndpoint(Gang& gang, Task& task, const wire::TaskEndpoint& endpoint) {
  task.set_has_endpoint(true);
  task.set_endpoint(endpoint.address());
  task.set_left_epoch(endpoint.left_epoch());
  *task.mutable_unreachable() = endpoint.unreachable();
  task.set_busy_ms(0);
  if (!gang.elastic() || endpoint.left_epoch() == 0) return;
  if (gang.forming() && gang.forming_ms() == 0) gang.set_forming_ms(record_.wall_ms());
  if (!gang.has_recovery()) return;
  Recovery& open = *gang.mutable_recovery();
  const int64_t left = endpoint.left_wall_ms();
  if (open.detected_ms() == 0 || left < open.detected_ms()) open.set_detected_ms(left);
  // Another rank, which knew less or was on its way out, told of the group's end first.
  const bool late = gang.forming() && endpoint.left_epoch() + 1 == gang.epoch();
  if (!endpoint.corrupt() || !late || open.reason_code() == "CORRUPT") return;
  open.set_reason_code("CORRUPT");
  open.set_cause(endpoint.cause());
  Event event = MembershipEvent(gang, "REGROUPING", "REGROUPING");
  event.set_reason_code("CORRUPT");
  event.set_cause(endpoint.cause());
  Happened(std::move(event), FindJob(gang.job_id()));
}

// For people: a rank that is far behind is named, and waited for; so is a link that is slow.
void Applier::OnStraggler(Gang& gang, const Task& from, const wire::TaskStraggler& told) {
  if (told.epoch() != gang.epoch()) return;
  if (std::cmp_greater_equal(told.seat(), gang.tasks_size())) return;
  const Task& slow = gang.tasks(static_cast<int>(told.seat()));
  Event event = MembershipEvent(gang, "RUNNING", "RUNNING");
  event.set_reason_code("SLOW");
  if (told.has_link()) {
    event.set_cause(SlowLinkText(from, slow, told.link()));
    return Happened(std::move(event), FindJob(gang.job_id()));
  }
  event.set_cause(fmt::format(
      "rank {} on worker {} is {:.1f} s behind its peers after step {}: {}, and they wait",
      slow.rank(), slow.worker_id(), static_cast<double>(told.waited_ms()) / 1000,
      gang.progress().step(), told.computing() ? "it computes still" : "it waits itself"));
  Happened(std::move(event), FindJob(gang.job_id()));
}

void Applier::OnBusy(Gang& gang, Task& task, const wire::TaskBusy& busy) {
  if (!gang.elastic() || !gang.forming() || busy.epoch() != gang.epoch()) return;
  const bool first = task.busy_ms() < gang.forming_ms();
  task.set_busy_ms(record_.wall_ms());
  if (!first) return;
  Event event = MembershipEvent(gang, "REGROUPING", "REGROUPING");
  event.set_reason_code("SLOW");
  event.set_cause(fmt::format(
      "rank {} on worker {} computes still, and cannot leave its group: the others wait",
      task.rank(), task.worker_id()));
  Happened(std::move(event), FindJob(gang.job_id()));
}

// The end of a member's process is a better time of the fault than the first word of it.
void Applier::NoteFaultTime(Gang& gang, const Task& task, int64_t wall_ms) {
  if (!gang.has_recovery() || !IsMember(gang, task)) return;
  Recovery& open = *gang.mutable_recovery();
  if (wall_ms > 0 && (open.fault_ms() == 0 || wall_ms < open.fault_ms())) {
    open.set_fault_ms(wall_ms);
  }
}

void Applier::OnRecovered(Gang& gang, const wire::TaskRecovered& done) {
  // Behind the last step ranks may meet again and again without getting further.
  if (done.step() > gang.recovered_step()) gang.set_faults_in_row(0);
  gang.set_recovered_step(std::max(done.step(), gang.recovered_step()));
  Job* job = FindJob(gang.job_id());
  if (job == nullptr || !gang.has_recovery() || gang.forming() || done.epoch() != gang.epoch()) {
    return;
  }
  // Workers that are in one group reach each other again. That two ranks of one worker could not
  // be in it (they had one GPU) is not over because one is.
  gang.mutable_cuts()->erase(
      std::remove_if(gang.mutable_cuts()->begin(), gang.mutable_cuts()->end(),
                     [&](const Cut& cut) {
                       return cut.worker_a() != cut.worker_b() &&
                              HasMemberOn(gang, cut.worker_a()) &&
                              HasMemberOn(gang, cut.worker_b());
                     }),
      gang.mutable_cuts()->end());
  Recovery recovery = std::move(*gang.mutable_recovery());
  gang.clear_recovery();
  recovery.set_epoch(done.epoch());
  recovery.set_step(done.step());
  recovery.set_ranks(static_cast<uint32_t>(gang.members_size()));
  recovery.set_rebuild(done.rebuild_ms());
  recovery.set_restore(done.restore_ms());
  recovery.set_first_commit(done.first_commit_ms());
  recovery.set_restored_bytes(done.restored_bytes());
  const int64_t detected =
      recovery.detected_ms() > 0 ? recovery.detected_ms() : recovery.fault_ms();
  // Clocks of several hosts: no time is negative.
  auto between = [](int64_t from, int64_t to) {
    return static_cast<double>(std::max<int64_t>(0, to - from));
  };
  recovery.set_detect(between(recovery.fault_ms(), detected));
  recovery.set_agree(between(detected, recovery.agreed_ms()));
  recovery.set_total(between(std::min(recovery.fault_ms(), detected), done.committed_wall_ms()));
  Event event = MembershipEvent(gang, "REGROUPING", "RUNNING");
  event.set_reason_code(recovery.reason_code());
  event.set_cause(fmt::format(
      "recovered in {:.0f} ms (detect {:.0f}, agree {:.0f}, rebuild {:.1f}, restore {:.1f}, first "
      "commit {:.1f}): step {} by {} ranks in epoch {}",
      recovery.total(), recovery.detect(), recovery.agree(), recovery.rebuild(), recovery.restore(),
      recovery.first_commit(), recovery.step(), recovery.ranks(), recovery.epoch()));
  KeepRecovery(*job, std::move(recovery));
  job->clear_fault_ms();
  Happened(std::move(event), job);
}

void Applier::KeepRecovery(Job& job, Recovery recovery) {
  if (!recovery.restart()) job.set_recovery_count(job.recovery_count() + 1);
  *job.add_recoveries() = std::move(recovery);
  const int over = job.recoveries_size() - kRecoveriesKept;
  if (over > 0) job.mutable_recoveries()->DeleteSubrange(0, over);
}

}  // namespace lepton::scheduler
