// The agent's life: opening, the loop over posted work and timers, and the end.
#include "worker/agent.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runtime/base/config.h"
#include "runtime/base/freeze.h"
#include "runtime/base/hash.h"
#include "runtime/base/logging.h"
#include "worker/agent_loop.h"
#include "worker/host_info.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kMostGraceAtStop = seconds(3);
// From the last task's SIGKILL; and the channel may take another second.
constexpr Duration kStopLimit = milliseconds(900);
constexpr Duration kMostLeaveGrace = seconds(60);
// An upload that has not moved for so long holds no stop up.
constexpr Duration kUploadSilence = seconds(3);
constexpr Duration kGreetingLimit = seconds(2);

void WakeUp(const UniqueFd& fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(fd.get(), &one, sizeof(one));
}

}  // namespace

Agent::Loop::Loop(AgentOptions options)
    : options_(std::move(options)),
      incarnation_(RandomHex(8)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(wake_.valid()) << strerror(errno);
}

Agent::Loop::~Loop() {
  if (objects_) objects_->Shutdown();
  runners_.clear();
  uploader_.reset();
  channel_.reset();  // its thread uses objects_ until here
}

Status Agent::Loop::Open() {
  if (options_.worker_id.empty()) options_.worker_id = HostName() + "-" + RandomHex(2);
  if (options_.slots == 0) options_.slots = UsableCores();
  if (options_.task_command.empty()) options_.task_command = {"/proc/self/exe", "task"};
  if (options_.data_dir.empty()) {
    auto scratch = ScratchFolder::Make();
    if (!scratch.ok()) return scratch.status().WithContext("data_dir");
    scratch_ = *std::move(scratch);
    options_.data_dir = scratch_->path();
  }
  Result<std::unique_ptr<storage::ObjectStore>> store =
      storage::ObjectStore::Open(options_.data_dir);
  if (!store.ok()) return store.status().WithContext("data_dir");
  store_ = *std::move(store);
  cache_ = std::make_unique<ObjectCache>(
      store_.get(),
      ObjectCache::Options{.limit_bytes = options_.cache_limit_bytes, .idle = options_.cache_idle});
  objects_ = std::make_unique<ObjectTransfer>(
      store_.get(), [this](const wire::ToCoordinator& message) { channel_->Send(message); },
      ObjectTransfer::Limits());
  uploader_ =
      std::make_unique<Uploader>(objects_.get(), [this](uint64_t entry, wire::TaskReport report) {
        Post([this, entry, report = std::move(report)]() mutable {
          const std::string task_id = report.task_id();
          outbox_.Release(task_id, entry, std::move(report));
        });
      });
  return OpenChannel();
}

void Agent::Loop::Stop() {
  stop_requested_ = true;
  WakeUp(wake_);
}

void Agent::Loop::Post(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
  }
  WakeUp(wake_);
}

void Agent::Loop::RunPosted() {
  std::deque<std::function<void()>> posted;
  {
    std::lock_guard lock(mutex_);
    posted.swap(posted_);
  }
  for (const std::function<void()>& work : posted) work();
}

Status Agent::Loop::Run() {
  last_heard_ = RealClock().Now();
  LOG(INFO) << "worker " << options_.worker_id << ": " << options_.slots << " slots, coordinator "
            << options_.coordinator;
  while (true) {
    pollfd wake = {wake_.get(), POLLIN, 0};
    const int timeout_ms = NextTimeoutMs();
    const MonotonicTime due = RealClock().Now() + milliseconds(timeout_ms);
    if (poll(&wake, 1, timeout_ms) > 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t n = read(wake_.get(), &count, sizeof(count));
    }
    ForgiveFreeze(due);
    if (stop_requested_) StopAll("the worker was stopped", Status::Ok(), /*leave=*/true);
    RunPosted();
    const MonotonicTime now = RealClock().Now();
    OnTime(now);
    SendReports();
    if (Done(now)) break;
  }
  SendGoodbye();
  // Every task is gone when Run returns, whatever became of its last words.
  objects_->Shutdown();
  runners_.clear();
  uploader_.reset();
  channel_.reset();
  return result_;
}

// What the coordinator has said meanwhile is still to be read; and it may have been frozen too.
void Agent::Loop::ForgiveFreeze(MonotonicTime due) {
  const MonotonicTime now = RealClock().Now();
  if (!WasFrozen(due, now, std::min(lease_ / 2, options_.max_coordinator_silence))) return;
  last_heard_ = now;
  greeted_ = now;
}

int Agent::Loop::NextTimeoutMs() const {
  MonotonicTime next = last_heard_ + lease_ / 2;
  if (link_ == Link::kServing) next = std::min(next, next_heartbeat_);
  if (link_ == Link::kGreeting) next = greeted_ + kGreetingLimit;
  if (link_ == Link::kConnecting) next = next_look_;
  if (phase_ == Phase::kDraining) next = std::min(next, drain_until_);
  if (phase_ == Phase::kStopping) {
    next = std::min(next, give_up_at_);
  } else if (options_.max_coordinator_silence != Duration::max()) {
    next = std::min(next, last_heard_ + options_.max_coordinator_silence);
  }
  return Deadline(next).LeftMs(1000);
}

void Agent::Loop::OnTime(MonotonicTime now) {
  WatchLink(now);
  if (link_ == Link::kServing && now >= next_heartbeat_) SendHeartbeat();
  if (link_ == Link::kConnecting) LookForCoordinator(now);
  const bool uploads = Uploads(now);
  if (phase_ == Phase::kDraining && now >= drain_until_) {
    if (!uploads) return StopAll("the worker is drained", Status::Ok());
    drain_until_ = now + kStopLimit;
  }
  if (phase_ == Phase::kStopping && now >= give_up_at_ && uploads) {
    give_up_at_ = std::min(now + kStopLimit, most_until_);
  }
}

// Its tasks have ended, and what they left is on its way: a checkpoint for which all of a gang
// waited, say.
bool Agent::Loop::Uploads(MonotonicTime now) const {
  return link_ == Link::kServing && runners_.empty() && !outbox_.empty() &&
         now - objects_->uploaded_at() < kUploadSilence;
}

void Agent::Loop::WatchLink(MonotonicTime now) {
  if (link_ == Link::kServing && now - last_heard_ > lease_ / 2) {
    LOG(WARNING) << "the coordinator is silent; connecting anew";
    LoseLink();
  } else if (link_ == Link::kGreeting && now - greeted_ > kGreetingLimit) {
    LoseLink();
  }
  if (options_.max_coordinator_silence != Duration::max() &&
      now - last_heard_ >= options_.max_coordinator_silence) {
    StopAll("no coordinator", Unavailable(options_.coordinator + ": no coordinator for " +
                                          FormatDuration(options_.max_coordinator_silence)));
  }
}

void Agent::Loop::StopAll(const std::string& reason, Status result, bool leave) {
  if (phase_ == Phase::kStopping) return;
  phase_ = Phase::kStopping;
  result_ = std::move(result);
  Duration longest = kMostGraceAtStop;
  if (!runners_.empty()) LOG(INFO) << "stopping " << runners_.size() << " tasks: " << reason;
  for (auto& [id, runner] : runners_) {
    Duration grace = std::min(options_.stop_grace, kMostGraceAtStop);
    if (leave) grace = std::max(grace, std::min(runner->leave_grace(), kMostLeaveGrace));
    longest = std::max(longest, grace);
    runner->Stop(grace, reason, /*alone=*/true);
  }
  give_up_at_ = RealClock().Now() + longest + kStopLimit;
  next_heartbeat_ = RealClock().Now();  // which says so
  most_until_ = RealClock().Now() + kMostLeaveGrace + kStopLimit;
}

bool Agent::Loop::Done(MonotonicTime now) {
  if (phase_ == Phase::kWorking) return false;
  if (phase_ == Phase::kStopping && now >= give_up_at_) return true;
  if (!runners_.empty()) return false;
  if (outbox_.empty()) return true;
  // Nobody to tell? A coordinator that starts again is back within a lease.
  const bool gone = !result_.ok() || now - last_heard_ > lease_;
  return phase_ == Phase::kStopping && link_ != Link::kServing && gone;
}

Agent::Agent(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Agent::~Agent() = default;

Result<std::unique_ptr<Agent>> Agent::Create(AgentOptions options) {
  auto loop = std::make_unique<Loop>(std::move(options));
  LEPTON_RETURN_IF_ERROR(loop->Open());
  return std::unique_ptr<Agent>(new Agent(std::move(loop)));
}

Status Agent::Run() {
  return loop_->Run();
}
void Agent::Stop() {
  loop_->Stop();
}
const std::string& Agent::worker_id() const {
  return loop_->options().worker_id;
}
uint32_t Agent::slots() const {
  return loop_->options().slots;
}

}  // namespace lepton::worker
