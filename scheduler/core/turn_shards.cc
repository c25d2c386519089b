// Sharded gangs: which rank does what, and what follows when all is done. docs/decisions/shards.md.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/shard_deal.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

std::vector<ShardHand> HandsOf(const Gang& gang) {
  std::vector<ShardHand> hands;
  for (const Task& task : gang.tasks()) {
    if (!IsUp(task) || !task.takes_shards() || !IsMember(gang, task)) continue;
    ShardHand& hand = hands.emplace_back();
    hand.seat = task.rank();
    hand.shards.assign(task.shards().begin(), task.shards().end());
    hand.since_ms = task.shard_since_ms();
    hand.leaving = task.leaving();
  }
  return hands;
}

int64_t LatenessMs(const Shards& shards) {
  std::vector<int64_t> took;
  for (const ShardPace& pace : shards.pace()) took.push_back(pace.took_ms());
  return ShardLatenessMs(std::move(took));
}

// A full or a failing disk, which somebody will see to.
bool MayPass(const Status& status) {
  return status.code() == StatusCode::kResourceExhausted ||
         status.code() == StatusCode::kPermissionDenied ||
         status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kInternal;
}

}  // namespace

int64_t ShardTimer(const Gang& gang, const Job& job, int64_t ticked_ms) {
  if (!gang.sharded() || gang.state() == GANG_STOPPING || gang.has_result()) {
    return std::numeric_limits<int64_t>::max();
  }
  return NextLateMs(HandsOf(gang), ticked_ms, LatenessMs(job.shards()));
}

void Turn::DealHands(const std::string& gang_id, std::set<uint32_t> tell) {
  auto it = state_.gangs.find(gang_id);
  if (it == state_.gangs.end() || !it->second.sharded()) return;
  const Gang& gang = it->second;
  if (gang.state() == GANG_STOPPING || gang.has_result()) return;
  const JobId id(gang.job_id());
  const Shards& shards = state_.jobs.at(id).shards();
  const auto most = static_cast<uint32_t>(std::max(0, state_.Spec(id).restart.max));
  std::vector<uint32_t> undone;
  for (int i = 0; i < shards.results_size(); ++i) {
    const ShardResult& result = shards.results(i);
    if (!result.object().empty()) continue;
    if (result.deaths() > most) return FailShard(gang_id, i);
    undone.push_back(static_cast<uint32_t>(i));
  }
  std::vector<ShardHand> hands = HandsOf(gang);
  const ShardDeal deal = DealShards(undone, now_, LatenessMs(shards), &hands);
  if (!deal.changed.empty()) {
    Record record;
    ShardsDealt& dealt = *record.mutable_shards_dealt();
    dealt.set_gang_id(gang_id);
    for (const ShardHand& hand : hands) {
      if (std::find(deal.changed.begin(), deal.changed.end(), hand.seat) == deal.changed.end()) {
        continue;
      }
      ShardsDealt::Hand& told = *dealt.add_hands();
      told.set_seat(hand.seat);
      told.mutable_shards()->Add(hand.shards.begin(), hand.shards.end());
    }
    dealt.mutable_late()->Add(deal.late.begin(), deal.late.end());
    Persist(std::move(record));
    tell.insert(deal.changed.begin(), deal.changed.end());
  }
  for (const uint32_t seat : tell) SendShards(gang, gang.tasks(static_cast<int>(seat)));
}

// Its rows are the reason, it seems: whoever tries them dies.
void Turn::FailShard(const std::string& gang_id, int shard) {
  const JobId id(state_.gangs.at(gang_id).job_id());
  const Shards& shards = state_.jobs.at(id).shards();
  const int64_t first = shard * shards.shard_rows();
  StopJob(
      id, JOB_FAILED, "SHARD_FAILED", "ABORTED",
      fmt::format("shard {} (rows {} to {} of the output): {} ranks died of it, and restart.max "
                  "is {}: look at these rows, or raise restart.max",
                  shard, first, std::min(shards.rows(), first + shards.shard_rows()) - 1,
                  shards.results(shard).deaths(), state_.Spec(id).restart.max));
}

// May be repeated: an order says all that there is to do.
void Turn::SendShards(const Gang& gang, const Task& task) {
  if (!IsUp(task) || !task.takes_shards()) return;
  const Shards& shards = state_.jobs.at(JobId(gang.job_id())).shards();
  wire::TaskShards order;
  order.set_task_id(task.id());
  order.set_rows(shards.rows());
  order.set_shard_rows(shards.shard_rows());
  *order.mutable_shards() = task.shards();
  order.set_seen(task.shard_reports());
  effects_.SendShards(WorkerId(task.worker_id()), order);
}

void Turn::OnShardsReady(const std::string& gang_id, uint32_t seat) {
  const Gang& gang = state_.gangs.at(gang_id);
  const Task& task = gang.tasks(static_cast<int>(seat));
  if (!gang.sharded() || gang.state() == GANG_STOPPING || gang.has_result()) return;
  reactor_.dirty_ = true;
  MaybeRunning(gang_id);
  // The gang before was lost as the last of the work was being done.
  const Job& job = state_.jobs.at(JobId(gang.job_id()));
  if (!job.shards().file().empty()) {
    return FinishShards(JobId(job.id()), job.shards().file(), job.shards().file_bytes());
  }
  if (IsMember(gang, task)) return DealHands(gang_id, {seat});
  std::vector<uint32_t> members = NextMembers(gang);
  members.push_back(seat);
  EpochChange change;
  change.reason_code = "RANK_JOINS";
  change.cause = fmt::format("rank {} on worker {} joins", seat, task.worker_id());
  change.fault = false;
  NewEpoch(gang_id, members, change);
}

std::set<uint32_t> Turn::OthersWith(const Gang& gang, const Task& task, uint32_t shard) const {
  std::set<uint32_t> seats;
  for (const Task& one : gang.tasks()) {
    const bool has =
        std::find(one.shards().begin(), one.shards().end(), shard) != one.shards().end();
    if (has && one.id() != task.id()) seats.insert(one.rank());
  }
  return seats;
}

void Turn::OnShardDone(const std::string& gang_id, uint32_t seat, const wire::TaskShardDone& done,
                       std::set<uint32_t> others) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (!gang.sharded()) return;
  if (!done.error_code().empty()) {
    // Its disk, or its way to us: another rank has others.
    const Task task = gang.tasks(static_cast<int>(seat));
    const std::string cause = fmt::format("shard {} could not be stored: {}: {}", done.shard(),
                                          done.error_code(), done.error());
    SendStop(task, 0, cause);
    LoseTask(task.id(), cause);
    return AfterLoss({gang_id}, "SHARD_NOT_STORED");
  }
  Forget({done.object()});  // if it came second, with other bytes
  DealHands(gang_id, std::move(others));
}

void Turn::FinishShards(const JobId& id, const std::string& object, uint64_t bytes) {
  Record record;
  ShardsJoined& joined = *record.mutable_shards_joined();
  joined.set_job_id(id.str());
  joined.set_object(object);
  joined.set_bytes(bytes);
  joined.set_file_name(state_.Spec(id).batch->output.file_name());
  Persist(std::move(record));
  const auto gangs = state_.gangs_of_job.find(id);
  if (gangs == state_.gangs_of_job.end()) return;  // the next one finds it
  StopGang(std::string(*gangs->second.begin()), "DONE", "every shard is done");
}

void Turn::On(const ShardsStored& stored) {
  Answer(Status::Ok());
  auto it = state_.jobs.find(stored.job);
  if (it == state_.jobs.end() || IsTerminal(it->second.state())) return;
  const Job& job = it->second;
  if (job.state() == JOB_STOPPING || !job.shards().file().empty()) return;
  if (stored.status.ok()) {
    // One was found to be bad meanwhile: what was joined is not all.
    if (static_cast<int>(job.shards().done()) != job.shards().results_size()) return;
    return FinishShards(stored.job, stored.object, stored.bytes);
  }
  if (stored.bad_shard < 0 && MayPass(stored.status)) {
    // What is done stays, and is joined again until there is room.
    const auto told = [&](const Event& event) {
      return event.reason_code() == "NOT_STORED" && event.cause() == stored.status.message();
    };
    if (std::any_of(job.events().begin(), job.events().end(), told)) return;
    Record record;
    record.mutable_job_noted()->set_job_id(stored.job.str());
    record.mutable_job_noted()->set_reason_code("NOT_STORED");
    record.mutable_job_noted()->set_cause(stored.status.message());
    return Persist(std::move(record));
  }
  if (stored.bad_shard < 0) {
    return StopJob(stored.job, JOB_FAILED, "NOT_STORED",
                   std::string(StatusCodeName(stored.status.code())), stored.status.message());
  }
  Record record;
  record.mutable_shard_spoiled()->set_job_id(stored.job.str());
  record.mutable_shard_spoiled()->set_shard(static_cast<uint32_t>(stored.bad_shard));
  record.mutable_shard_spoiled()->set_cause(stored.status.message());
  Persist(std::move(record));
  const auto gangs = state_.gangs_of_job.find(stored.job);
  if (gangs != state_.gangs_of_job.end()) DealHands(std::string(*gangs->second.begin()), {});
}

}  // namespace lepton::scheduler
