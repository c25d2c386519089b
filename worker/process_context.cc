#include "worker/process_context.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "collectives/group_faults.h"
#include "collectives/split.h"
#include "runtime/base/logging.h"
#include "runtime/base/progress.h"
#include "runtime/wire/valid_text.h"
#include "worker/log_lines.h"

namespace lepton::worker {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

// The others of the gang may still be fetching their inputs. The coordinator stops a gang that can
// no longer meet much sooner than this.
constexpr Duration kMeetingLimit = minutes(10);
constexpr Duration kJoinLimit = seconds(60);
constexpr int kLinkTimeouts = 4;  // within the time that a group may stand still

UniqueFd TerminationSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace

ProcessContext::ProcessContext(wire::FrameSocket* socket, wire::StartTask start, spec::JobSpec spec,
                               std::unique_ptr<storage::ObjectStore> objects,
                               std::string bind_address)
    : socket_(socket),
      start_(std::move(start)),
      spec_(std::move(spec)),
      objects_(std::move(objects)),
      bind_address_(std::move(bind_address)),
      signals_(TerminationSignals()),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      membership_(
          start_.elastic() && !start_.sharded()
              ? std::make_unique<GangMembership>(start_, spec_, bind_address_,
                                                 [this](const wire::TaskUp& up) { Report(up); })
              : nullptr),
      shards_(start_.sharded()
                  ? std::make_unique<ShardOrders>([this](const wire::TaskUp& up) { Report(up); })
                  : nullptr),
      listener_([this] { Listen(); }) {}

ProcessContext::~ProcessContext() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake_.get(), &one, sizeof(one));
  listener_.join();
}

void ProcessContext::Listen() {
  wire::FrameReader reader;
  pollfd fds[] = {
      {wake_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}, {socket_->fd(), POLLIN, 0}};
  while (true) {
    if (poll(fds, 3, SendPulse()) < 0) continue;
    if (fds[0].revents != 0) return;
    if (fds[1].revents != 0) {
      signalfd_siginfo info;
      while (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      }
      RequestLeave("SIGTERM", /*at_once=*/false);
    }
    if (fds[2].revents == 0) continue;
    const Status filled = reader.Fill(socket_->fd());
    while (true) {
      Result<std::optional<std::string>> frame = reader.Next();
      if (!frame.ok() || !frame->has_value()) break;
      wire::TaskDown order;
      if (order.ParseFromString(**frame)) OnOrder(std::move(order));
    }
    // The kernel kills this process in a moment (PR_SET_PDEATHSIG), as the others of its gang
    // expect. Stopping instead would take them along: all ranks stop behind the same step.
    if (!filled.ok()) {
      LOG(ERROR) << "the agent is gone";
      kill(getpid(), SIGKILL);
    }
  }
}

// When due; returns the milliseconds until the next one, -1 for never.
int ProcessContext::SendPulse() {
  if (start_.pulse_ms() == 0) return -1;
  const MonotonicTime now = RealClock().Now();
  if (now >= next_pulse_) {
    next_pulse_ = now + std::chrono::milliseconds(start_.pulse_ms());
    wire::TaskUp up;
    const progress::Look look = progress::Now();
    up.mutable_pulse()->set_count(++pulses_);
    up.mutable_pulse()->set_progress(look.ticks);
    up.mutable_pulse()->set_computing(look.computing);
    up.mutable_pulse()->set_doing(look.doing);
    ReportIfRoom(std::move(up));
    if (membership_ != nullptr) membership_->Watch();
    // Whoever scans ports must not fill the agent's outbox.
    if (now - faults_told_ >= seconds(1)) {
      faults_told_ = now;
      TellGroupFaults();
    }
  }
  return Deadline(next_pulse_).LeftMs();
}

void ProcessContext::OnOrder(wire::TaskDown order) {
  if (order.has_stop()) {
    return order.stop().alone() ? RequestLeave(order.stop().reason(), order.stop().at_once())
                                : RequestStop(order.stop().reason());
  }
  if (order.has_shards() && shards_ != nullptr) return shards_->OnOrder(order.shards());
  if (!order.has_group()) return;
  if (membership_ != nullptr) return membership_->OnGroup(std::move(*order.mutable_group()));
  std::lock_guard lock(mutex_);
  group_ = std::move(*order.mutable_group());
  changed_.notify_all();
}

void ProcessContext::RequestStop(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (stop_.exchange(true)) return;
  stop_reason_ = reason;
  LOG(INFO) << "asked to stop: " << reason;
  changed_.notify_all();
  if (membership_ != nullptr) membership_->OnStop(reason);
  if (shards_ != nullptr) shards_->OnStop(reason);
}

// This task alone, where the gang can go on without it.
void ProcessContext::RequestLeave(const std::string& reason, bool at_once) {
  if (shards_ != nullptr) {
    LOG(INFO) << "asked to leave: " << reason;
    return shards_->OnLeave(reason, std::chrono::milliseconds(start_.stop_grace_ms()));
  }
  if (membership_ == nullptr) return RequestStop(reason);
  LOG(INFO) << "asked to leave: " << reason;
  membership_->OnLeave(reason, at_once);
}

// Waits as long as the agent does not read, for it may be stopped (Ctrl-Z of a `lepton run`) and go
// on: a checkpoint or a result that was dropped would be lost for good. One that is gone has closed
// the socket.
void ProcessContext::Report(wire::TaskUp up) {
  wire::MakeTextValid(up);
  std::lock_guard lock(send_mutex_);
  const Status status = socket_->Send(up, Deadline::Never());
  if (!status.ok()) LOG(ERROR) << "report to the agent: " << status.ToString();
}

// For pulses, of which another follows: the listening thread has orders to take.
void ProcessContext::ReportIfRoom(wire::TaskUp up) {
  wire::MakeTextValid(up);
  std::unique_lock lock(send_mutex_, std::try_to_lock);
  if (!lock) return;
  const Status status = socket_->Send(up, Deadline::In(Duration::zero()));
  if (!status.ok() && status.code() != StatusCode::kDeadlineExceeded) {
    LOG(ERROR) << "pulse to the agent: " << status.ToString();
  }
}

void ProcessContext::TellGroupFaults() {
  const collectives::GroupFaults faults = collectives::TakeGroupFaults();
  if (faults.empty()) return;
  wire::TaskUp up;
  up.mutable_group_faults()->mutable_refused()->insert(faults.refused.begin(),
                                                       faults.refused.end());
  up.mutable_group_faults()->set_corrupt(faults.corrupt);
  up.mutable_group_faults()->mutable_failures()->insert(faults.failures.begin(),
                                                        faults.failures.end());
  Report(std::move(up));
}

Result<wire::TaskGroup> ProcessContext::AwaitGroup() {
  std::unique_lock lock(mutex_);
  const bool met = changed_.wait_until(lock, Deadline::In(kMeetingLimit).at(), [this] {
    return stop_ || (group_ && group_->epoch() >= start_.epoch());
  });
  if (stop_) return Cancelled("stopped while the gang was meeting: " + stop_reason_);
  if (!met) return DeadlineExceeded("the gang did not meet within 10 minutes");
  return *group_;
}

Result<std::unique_ptr<collectives::Communicator>> ProcessContext::JoinGang() {
  // Alone there is nobody to meet, and MPI_Init would wait for the launcher's other processes.
  const bool alone = start_.size() <= 1 && spec_.collectives == "mpi";
  LEPTON_ASSIGN_OR_RETURN(const collectives::Backend* backend,
                          collectives::FindBackend(alone ? "native" : spec_.collectives));
  LEPTON_RETURN_IF_ERROR(backend->Available().WithContext("collectives"));
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<collectives::Endpoint> endpoint,
                          backend->Listen(bind_address_));
  collectives::GroupSpec group;
  group.rank = static_cast<int>(start_.rank());
  group.size = static_cast<int>(std::max(1u, start_.size()));
  group.epoch = start_.epoch();
  group.token = start_.group_token();
  group.leaves = spec_.shards();
  if (group.size == 1) {
    group.members = {endpoint->address()};
  } else {
    wire::TaskUp up;
    up.mutable_endpoint()->set_address(endpoint->address());
    Report(up);
    LEPTON_ASSIGN_OR_RETURN(const wire::TaskGroup met, AwaitGroup());
    group.epoch = met.epoch();
    group.members.resize(static_cast<size_t>(group.size));
    for (const wire::Member& member : met.members()) {
      if (member.rank() < group.members.size()) group.members[member.rank()] = member.address();
    }
    if (std::any_of(group.members.begin(), group.members.end(),
                    [](const std::string& address) { return address.empty(); })) {
      return Internal("the gang's list of members is not complete");
    }
  }
  return backend->Join(std::move(endpoint), group, GangOptions(spec_), Deadline::In(kJoinLimit));
}

Result<std::unique_ptr<collectives::Communicator>> ProcessContext::JoinGroup(
    collectives::Communicator& gang, int color, int leaves) {
  return collectives::Split(gang, color, bind_address_, GangOptions(spec_),
                            Deadline::In(kJoinLimit), leaves);
}

collectives::Options GangOptions(const spec::JobSpec& spec) {
  collectives::Options options;
  options.timeout =
      std::max<Duration>(options.timeout, kBudgetsOfStillness * spec.elastic.recovery_budget);
  options.link_timeout = options.timeout / kLinkTimeouts;
  return options;
}

void ProcessContext::ReportProgress(const wire::TaskProgress& progress) {
  wire::TaskUp up;
  *up.mutable_progress() = progress;
  Report(up);
}

void ProcessContext::ReportCheckpoint(const wire::TaskCheckpoint& checkpoint) {
  wire::TaskUp up;
  *up.mutable_checkpoint() = checkpoint;
  Report(up);
}

void ProcessContext::ReportCheckpointSlice(const wire::TaskCheckpointSlice& slice) {
  wire::TaskUp up;
  *up.mutable_checkpoint_slice() = slice;
  Report(up);
}

void ProcessContext::ReportReady(const std::string& host, uint16_t port, double warmup_ms) {
  wire::TaskUp up;
  // A replica that listens everywhere is reached where its worker's data plane is.
  up.mutable_ready()->set_host(host == "0.0.0.0" || host == "::" ? bind_address_ : host);
  up.mutable_ready()->set_port(port);
  up.mutable_ready()->set_warmup_ms(warmup_ms);
  Report(up);
}

void ProcessContext::SetResult(const wire::TaskFinished& result) {
  std::lock_guard lock(mutex_);
  result_ = result;
}

void ProcessContext::Finish(const Status& status) {
  TellGroupFaults();
  wire::TaskUp up;
  {
    std::lock_guard lock(mutex_);
    *up.mutable_finished() = result_;
  }
  up.mutable_finished()->set_code(std::string(StatusCodeName(status.code())));
  up.mutable_finished()->set_message(ToValidUtf8(status.message()));
  Report(up);
}

}  // namespace lepton::worker
