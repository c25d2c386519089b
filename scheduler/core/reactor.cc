#include "scheduler/core/reactor.h"

#include <glog/logging.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/wire/valid_text.h"
#include "scheduler/core/index.h"
#include "scheduler/core/turn.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

// From a worker's Hello until its reports of the time before have come.
constexpr int64_t kCatchUpMs = 2'000;

}  // namespace

std::string RecordBytes(const Record& record) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream out(&bytes);
    google::protobuf::io::CodedOutputStream coded(&out);
    coded.SetSerializationDeterministic(true);
    CHECK(record.SerializeToCodedStream(&coded));
  }
  return bytes;
}

Reactor::Reactor(ReactorOptions options, State state, int64_t wall_ms)
    : options_(std::move(options)), state_(std::move(state)), now_ms_(wall_ms) {
  now_ms_ = std::max(now_ms_, state_.last_wall_ms);
  const int64_t until = now_ms_ + std::max<int64_t>(options_.lease_ms, options_.come_back_ms);
  for (const auto& [id, worker] : state_.workers) {
    if (worker.state() != WORKER_LOST) unconfirmed_[id] = until;
  }
  if (!unconfirmed_.empty()) {
    absence_ = {.began_ms = now_ms_, .heard_ms = state_.last_wall_ms};
    absence_->seen.known = unconfirmed_.size();
  }
}

int64_t Reactor::HeardMs(const Gang& gang) const {
  int64_t heard = 0;
  for (const Task& task : gang.tasks()) {
    if (!IsAlive(task)) continue;
    const WorkerId worker(task.worker_id());
    if (const auto away = unconfirmed_.find(worker); away != unconfirmed_.end()) {
      heard = std::max(heard, away->second);
    } else if (const auto back = returned_.find(worker); back != returned_.end()) {
      heard = std::max(heard, back->second + kCatchUpMs);
    }
  }
  return heard;
}

int64_t Reactor::StopDeadline(const Gang& gang) const {
  int64_t since = gang.stopping_ms();
  for (const Task& task : gang.tasks()) {
    const auto storing = storing_ms_.find(task.id());
    if (storing != storing_ms_.end()) since = std::max(since, storing->second);
  }
  return since + options_.stop_timeout_ms;
}

void Reactor::On(const Input& input, Effects& effects) {
  timer_.reset();
  now_ms_ = std::max({now_ms_, state_.last_wall_ms, input.wall_ms});
  Turn(*this, input, effects).Run();
}

std::optional<int64_t> Reactor::next_timer_ms() const {
  if (!timer_) timer_ = NextTimer();
  return *timer_;
}

std::optional<int64_t> Reactor::NextTimer() const {
  int64_t next = std::numeric_limits<int64_t>::max();
  // Times that a Tick has seen pass wait for something else than time: slots, or a worker.
  auto at = [&](int64_t wall_ms) {
    if (wall_ms > ticked_ms_) next = std::min(next, wall_ms);
  };
  at(put_off_ms_);
  for (const auto& [id, wall_ms] : unconfirmed_) at(wall_ms);
  for (const auto& [id, put_off] : put_off_) at(put_off.until_ms);
  for (const auto& [id, worker] : state_.workers) {
    if (worker.state() == WORKER_LOST) at(worker.since_ms() + options_.forget_lost_worker_ms);
  }
  for (const JobId& id : state_.active) {
    const Job& job = state_.jobs.at(id);
    at(job.deadline_ms());
    at(job.retry_at_ms());
    for (const Trial& trial : job.trials()) at(trial.retry_at_ms());
  }
  for (const auto& [id, gang] : state_.gangs) {
    at(HeardMs(gang));
    if (gang.state() == GANG_STARTING) at(StartDeadline(gang, options_));
    if (gang.state() == GANG_STOPPING) at(StopDeadline(gang));
    if (gang.result_ms() > 0) at(gang.result_ms() + options_.stop_timeout_ms);
    if (gang.sharded()) at(ShardTimer(gang, state_.jobs.at(JobId(gang.job_id())), ticked_ms_));
    if (gang.elastic())
      at(ElasticTimer(gang, state_.Spec(JobId(gang.job_id())), options_, ticked_ms_));
  }
  for (const auto& [name, deployment] : state_.deployments) at(deployment.retry_at_ms());
  if (next == std::numeric_limits<int64_t>::max()) return std::nullopt;
  return next;
}

Turn::Turn(Reactor& reactor, const Input& input, Effects& effects)
    : reactor_(reactor),
      options_(reactor.options_),
      state_(reactor.state_),
      input_(input),
      effects_(effects),
      now_(reactor.now_ms_) {}

void Turn::Run() {
  std::visit([this](const auto& body) { On(body); }, input_.body);
  Schedule();
}

void Turn::On(const Tick&) {
  reactor_.ticked_ms_ = now_;
  TickWorkers();
  // Copies: what a tick does may end gangs and jobs.
  std::vector<std::string> gangs;
  for (const auto& [id, gang] : state_.gangs) gangs.push_back(id);
  std::erase_if(gangs, [this](const std::string& id) {
    const int64_t heard = reactor_.HeardMs(state_.gangs.at(id));
    if (now_ < heard) reactor_.put_off_ms_ = std::max(reactor_.put_off_ms_, heard);
    return now_ < heard;
  });
  for (const std::string& id : gangs) TickGang(id);
  for (const std::string& id : gangs) TickElastic(id);
  for (const std::string& id : gangs) DealHands(id, {});
  const std::vector<JobId> jobs(state_.active.begin(), state_.active.end());
  for (const JobId& id : jobs) TickJob(id);
  reactor_.dirty_ = true;
}

void Turn::Persist(Record record) {
  record.set_version(1);
  record.set_seq(state_.last_seq + 1);
  record.set_wall_ms(now_);
  // Text that came from anywhere must not make the journal unreadable.
  wire::MakeTextValid(record);
  std::vector<Event> events;
  const Status applied = Apply(record, state_, &events);
  CHECK(applied.ok()) << "the reactor made a record that does not fit: " << applied.ToString();
  effects_.Persist(record);
  for (const Event& event : events) effects_.Notify(event);
}

void Turn::Answer(Status status, std::string id, bool existed) {
  if (input_.request == 0) return;
  effects_.Answer({input_.request, std::move(status), std::move(id), existed});
}

void Turn::Forget(const std::vector<std::string>& digests) {
  std::set<std::string> gone;
  for (const std::string& digest : digests) {
    if (!digest.empty() && !state_.ObjectInUse(digest)) gone.insert(digest);
  }
  if (!gone.empty()) effects_.ForgetObjects({gone.begin(), gone.end()});
}

}  // namespace lepton::scheduler
