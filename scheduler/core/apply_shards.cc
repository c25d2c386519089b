// What becomes of a job's shards: cut, dealt to ranks, done, lost, joined into one file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/index.h"

namespace lepton::scheduler {
namespace {

constexpr int kPaceKept = 32;

int64_t RowsOf(const Shards& shards, int64_t shard) {
  return std::min(shards.shard_rows(), shards.rows() - shard * shards.shard_rows());
}

void SetHand(Task& task, const google::protobuf::RepeatedField<uint32_t>& shards, int64_t now_ms) {
  const bool same = !shards.empty() && !task.shards().empty() && shards[0] == task.shards(0);
  if (!same) task.set_shard_since_ms(shards.empty() ? 0 : now_ms);
  *task.mutable_shards() = shards;
}

double RowsPerSecond(const Shards& shards) {
  if (shards.pace_size() < 2) return 0;
  const int64_t from = shards.pace(0).wall_ms();
  const int64_t to = shards.pace(shards.pace_size() - 1).wall_ms();
  int64_t rows = 0;
  for (int i = 1; i < shards.pace_size(); ++i) rows += shards.pace(i).rows();
  return to > from ? static_cast<double>(rows) * 1000 / static_cast<double>(to - from) : 0;
}

}  // namespace

void Applier::OnShardsReady(Gang& gang, Task& task, const wire::TaskShardsReady& ready) {
  Job* job = FindJob(gang.job_id());
  if (!gang.sharded() || job == nullptr || ready.rows() <= 0 || ready.shard_rows() <= 0) return;
  task.set_takes_shards(true);
  task.set_group_epoch(gang.epoch());
  gang.set_progressed(true);
  gang.set_alive_ms(record_.wall_ms());
  Shards& shards = *job->mutable_shards();
  const bool first = shards.rows() == 0;
  if (first) {
    shards.set_rows(ready.rows());
    shards.set_shard_rows(ready.shard_rows());
    const int64_t count = (ready.rows() + ready.shard_rows() - 1) / ready.shard_rows();
    for (int64_t i = 0; i < count; ++i) shards.add_results();
  }
  // Once for each gang that begins.
  if (first || gang.progress().total_steps() == 0) {
    Event event = MembershipEvent(gang, "RUNNING", "RUNNING");
    event.set_reason_code("SHARDS");
    event.set_cause(fmt::format("{} rows in {} shards of {}", shards.rows(), shards.results_size(),
                                shards.shard_rows()));
    if (shards.done() > 0) {
      event.set_cause(event.cause() + fmt::format(", of which {} are done", shards.done()));
    }
    Happened(std::move(event), job);
  }
  ShowShards(*job, gang);
}

void Applier::OnShardDone(Gang& gang, Task& task, const wire::TaskShardDone& done) {
  task.set_shard_reports(task.shard_reports() + 1);
  Job* job = FindJob(gang.job_id());
  Shards* shards = job == nullptr ? nullptr : job->mutable_shards();
  const bool known = shards != nullptr && std::cmp_less(done.shard(), shards->results_size());
  if (!gang.sharded() || !known || !done.error_code().empty() || done.object().empty()) return;
  const int64_t now = record_.wall_ms();
  const bool in_progress = !task.shards().empty() && task.shards(0) == done.shard();
  const int64_t took = in_progress ? now - task.shard_since_ms() : -1;
  for (Task& one : *gang.mutable_tasks()) {
    // Of one that is gone its own reports say what it had done: it died in the first that is left.
    if (one.gone() && one.id() != task.id()) continue;
    google::protobuf::RepeatedField<uint32_t> left;
    for (const uint32_t shard : one.shards()) {
      if (shard != done.shard()) left.Add(shard);
    }
    if (left.size() < one.shards_size()) SetHand(one, left, now);
  }
  ShardResult& result = *shards->mutable_results(static_cast<int>(done.shard()));
  if (!result.object().empty()) {
    shards->set_done_twice(shards->done_twice() + 1);
    if (result.object() == done.object()) return;
    shards->set_differing(shards->differing() + 1);
    Event event = MembershipEvent(gang, "RUNNING", "RUNNING");
    event.set_reason_code("DIVERGED");
    event.set_cause(fmt::format(
        "shard {} by rank {} on worker {} has other bytes than by the rank that was first, whose "
        "are kept: one of the two machines computes wrongly",
        done.shard(), task.rank(), task.worker_id()));
    return Happened(std::move(event), job);
  }
  result.set_object(done.object());
  result.set_bytes(done.bytes());
  result.set_tokens(done.tokens());
  result.set_loss(done.loss());
  result.clear_deaths();
  ++state_.object_refs[done.object()];
  shards->set_done(shards->done() + 1);
  const int64_t rows = RowsOf(*shards, done.shard());
  shards->set_rows_done(shards->rows_done() + rows);
  gang.set_faults_in_row(0);
  if (took >= 0) {
    ShardPace& pace = *shards->add_pace();
    pace.set_wall_ms(now);
    pace.set_rows(rows);
    pace.set_took_ms(took);
    const int over = shards->pace_size() - kPaceKept;
    if (over > 0) shards->mutable_pace()->DeleteSubrange(0, over);
  }
  ShowShards(*job, gang);
}

void Applier::ShowShards(Job& job, Gang& gang) {
  Progress now;
  now.set_step(static_cast<uint64_t>(job.shards().rows_done()));
  now.set_total_steps(static_cast<uint64_t>(job.shards().rows()));
  now.set_samples_per_second(RowsPerSecond(job.shards()));
  now.set_wall_ms(record_.wall_ms());
  *gang.mutable_progress() = now;
  *job.mutable_progress() = std::move(now);
}

void Applier::DropHand(const Gang& gang, Task& task, bool died) {
  if (task.shards().empty()) return;
  Job* job = FindJob(gang.job_id());
  const auto first = static_cast<int>(task.shards(0));
  const auto held = static_cast<uint32_t>(task.shards_size());
  task.clear_shards();
  task.set_shard_since_ms(0);
  if (job == nullptr) return;
  job->mutable_shards()->set_taken_over(job->shards().taken_over() + held);
  if (!died || task.leaving() || gang.state() == GANG_STOPPING) return;
  if (first >= job->shards().results_size()) return;
  ShardResult& shard = *job->mutable_shards()->mutable_results(first);
  if (shard.object().empty()) shard.set_deaths(shard.deaths() + 1);
}

// Nobody has to meet: the change is over as it is made.
void Applier::RegroupSharded(Gang& gang, const GangRegrouped& change) {
  gang.set_epoch(change.epoch());
  *gang.mutable_members() = change.members();
  if (change.fault()) gang.set_faults_in_row(gang.faults_in_row() + 1);
  Job* job = FindJob(gang.job_id());
  if (job == nullptr) return;
  const int64_t now = record_.wall_ms();
  Recovery recovery;
  recovery.set_epoch(change.epoch());
  recovery.set_reason_code(change.reason_code());
  recovery.set_cause(change.cause());
  recovery.set_fault_ms(change.fault_ms());
  recovery.set_detected_ms(now);
  recovery.set_agreed_ms(now);
  recovery.set_detect(static_cast<double>(std::max<int64_t>(0, now - change.fault_ms())));
  recovery.set_total(recovery.detect());
  recovery.set_step(static_cast<uint64_t>(job->shards().rows_done()));
  recovery.set_ranks(static_cast<uint32_t>(gang.members_size()));
  KeepRecovery(*job, std::move(recovery));
  job->clear_fault_ms();
  Event event = MembershipEvent(gang, "REGROUPING", "RUNNING");
  event.set_reason_code(change.reason_code());
  event.set_cause(fmt::format("epoch {} with {} ranks after {} of {} rows: {}", change.epoch(),
                              change.members_size(), job->shards().rows_done(),
                              job->shards().rows(), change.cause()));
  Happened(std::move(event), job);
}

Status Applier::Dealt(const ShardsDealt& dealt) {
  Gang* gang = FindGang(dealt.gang_id());
  Job* job = gang == nullptr ? nullptr : FindJob(gang->job_id());
  if (job == nullptr) return NotThere("gang", dealt.gang_id());
  std::vector<std::string> with(static_cast<size_t>(job->shards().results_size()));
  uint32_t taken_over = 0;
  for (const ShardsDealt::Hand& hand : dealt.hands()) {
    if (std::cmp_greater_equal(hand.seat(), gang->tasks_size())) {
      return DataLoss(fmt::format("record {}: no seat {}", record_.seq(), hand.seat()));
    }
    Task& task = *gang->mutable_tasks(static_cast<int>(hand.seat()));
    if (task.leaving())
      taken_over += static_cast<uint32_t>(task.shards_size() - hand.shards_size());
    SetHand(task, hand.shards(), record_.wall_ms());
    if (hand.shards().empty() || hand.shards(0) >= with.size()) continue;
    with[hand.shards(0)] = fmt::format("rank {} on worker {}", task.rank(), task.worker_id());
  }
  Shards& shards = *job->mutable_shards();
  shards.set_taken_over(shards.taken_over() + taken_over);
  shards.set_doubled(shards.doubled() + static_cast<uint32_t>(dealt.late_size()));
  for (const uint32_t shard : dealt.late()) {
    for (const Task& slow : gang->tasks()) {
      const bool late = !slow.shards().empty() && slow.shards(0) == shard &&
                        slow.shard_since_ms() < record_.wall_ms();
      if (!late || shard >= with.size()) continue;
      Event event = MembershipEvent(*gang, "RUNNING", "RUNNING");
      event.set_reason_code("SLOW");
      event.set_cause(fmt::format(
          "rank {} on worker {} has shard {} for {:.1f} s, longer than others take: {} does it too",
          slow.rank(), slow.worker_id(), shard,
          static_cast<double>(record_.wall_ms() - slow.shard_since_ms()) / 1000, with[shard]));
      Happened(std::move(event), job);
      break;
    }
  }
  return Status::Ok();
}

Status Applier::Noted(const JobNoted& noted) {
  Job* job = FindJob(noted.job_id());
  if (job == nullptr) return NotThere("job", noted.job_id());
  Event event;
  event.set_type("job");
  event.set_trial(-1);
  event.set_attempt(job->attempt());
  event.set_reason_code(noted.reason_code());
  event.set_cause(noted.cause());
  Happened(std::move(event), job);
  return Status::Ok();
}

Status Applier::Spoiled(const ShardSpoiled& spoiled) {
  Job* job = FindJob(spoiled.job_id());
  const auto index = static_cast<int>(spoiled.shard());
  if (job == nullptr || index >= job->shards().results_size()) {
    return NotThere("job or shard", spoiled.job_id());
  }
  Shards& shards = *job->mutable_shards();
  ShardResult& result = *shards.mutable_results(index);
  if (result.object().empty()) return Status::Ok();
  auto refs = state_.object_refs.find(result.object());
  if (refs != state_.object_refs.end() && --refs->second <= 0) state_.object_refs.erase(refs);
  result.Clear();
  shards.set_done(shards.done() - 1);
  shards.set_rows_done(shards.rows_done() - RowsOf(shards, index));
  Event event;
  event.set_type("job");
  event.set_trial(-1);
  event.set_attempt(job->attempt());
  event.set_reason_code("SHARD_SPOILED");
  event.set_cause(fmt::format("shard {} is done again: {}", index, spoiled.cause()));
  Happened(std::move(event), job);
  return Status::Ok();
}

Status Applier::Joined(const ShardsJoined& joined) {
  Job* job = FindJob(joined.job_id());
  if (job == nullptr) return NotThere("job", joined.job_id());
  Shards& shards = *job->mutable_shards();
  if (shards.file().empty()) {
    shards.set_file(joined.object());
    shards.set_file_bytes(joined.bytes());
    ++state_.object_refs[joined.object()];
  }
  const auto gangs = state_.gangs_of_job.find(JobId(job->id()));
  if (gangs == state_.gangs_of_job.end()) return Status::Ok();
  Gang& gang = state_.gangs.at(*gangs->second.begin());
  if (gang.has_result()) return Status::Ok();
  JobResult& result = *gang.mutable_result();
  result.set_steps(static_cast<uint64_t>(shards.rows()));
  result.add_objects(shards.file());
  (*result.mutable_files())[joined.file_name()] = shards.file();
  // In the order of the shards, so that the sums have the same bits for any number of ranks.
  double loss = 0;
  int64_t tokens = 0;
  for (const ShardResult& one : shards.results()) {
    loss += one.loss();
    tokens += one.tokens();
  }
  auto& metrics = *result.mutable_metrics();
  metrics["rows"] = static_cast<double>(shards.rows());
  if (tokens > 0) {
    metrics["loss"] = loss / static_cast<double>(tokens);
    metrics["perplexity"] = std::exp(metrics["loss"]);
  }
  const int64_t started = job->started_ms() > 0 ? job->started_ms() : gang.placed_ms();
  metrics["seconds"] =
      static_cast<double>(std::max<int64_t>(0, record_.wall_ms() - started)) / 1000;
  gang.set_result_ms(record_.wall_ms());
  AddRefs(state_, result);
  return Status::Ok();
}

}  // namespace lepton::scheduler
