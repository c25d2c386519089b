#include "worker/task_runner.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runtime/base/freeze.h"
#include "runtime/base/logging.h"
#include "runtime/base/named_thread.h"

namespace lepton::worker {
namespace {

constexpr Duration kFetchReport = std::chrono::seconds(1);
constexpr Duration kLogFlush = std::chrono::milliseconds(50);
constexpr Duration kDrainAfterExit = std::chrono::milliseconds(200);
constexpr Duration kLeastToStart = std::chrono::seconds(2);
constexpr int kLooksInSilence = 4;  // so that a freeze shows: WasFrozen
constexpr int kLinesPerReport = 256;
constexpr int kKilledExit = 128;  // as shells have it
constexpr size_t kReadBytes = size_t{64} << 10;

void Wake(const UniqueFd& fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(fd.get(), &one, sizeof(one));
}

wire::TaskFinished Finished(const Status& status) {
  wire::TaskFinished finished;
  finished.set_code(std::string(StatusCodeName(status.code())));
  finished.set_message(ToValidUtf8(status.message()));
  return finished;
}

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return std::to_string(signal) + (name == nullptr ? "" : " (SIG" + std::string(name) + ")");
}

}  // namespace

TaskRunner::TaskRunner(wire::StartTask start, ChildProcess::Command command,
                       ObjectTransfer* objects, Duration exit_limit, Events events)
    : start_(std::move(start)),
      command_(std::move(command)),
      objects_(objects),
      exit_limit_(exit_limit),
      events_(std::move(events)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(wake_.valid()) << strerror(errno);
  thread_ = NamedThread("task", [this] { Run(); });
}

TaskRunner::~TaskRunner() {
  Kill("the worker ends");
  thread_.join();
}

void TaskRunner::Deliver(wire::TaskGroup group) {
  {
    std::lock_guard lock(mutex_);
    *orders_.emplace_back().mutable_group() = std::move(group);
  }
  Wake(wake_);
}

void TaskRunner::Deliver(wire::TaskShards shards) {
  {
    std::lock_guard lock(mutex_);
    *orders_.emplace_back().mutable_shards() = std::move(shards);
  }
  Wake(wake_);
}

void TaskRunner::Stop(Duration grace, const std::string& reason, bool alone, bool at_once) {
  {
    std::lock_guard lock(mutex_);
    const MonotonicTime kill_at = RealClock().Now() + grace;
    if (!kill_at_ || kill_at < *kill_at_) kill_at_ = kill_at;
    const bool first = !stopped_.exchange(true);
    if (first) stop_reason_ = reason;
    // To an elastic task the signal means that it goes alone, so an order says what is meant; and
    // the end of all may follow its own, as may the word that nobody is there to hand over to.
    terminate_ = terminate_ || (first && !start_.elastic() && !start_.sharded());
    if (first || ((start_.elastic() || start_.sharded()) && (!alone || at_once))) {
      wire::StopTask& stop = *orders_.emplace_back().mutable_stop();
      stop.set_task_id(start_.task_id());
      stop.set_reason(reason);
      stop.set_alone(alone);
      stop.set_at_once(at_once);
    }
  }
  objects_->Wake();
  Wake(wake_);
}

void TaskRunner::Run() {
  // Signals are for the process's main thread.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  Status status = FetchInputs();
  if (status.ok()) status = StartProcess();
  wire::TaskReport report;
  if (status.ok()) {
    Supervise();
    *report.mutable_finished() = Conclude(child_.Reap());
    DrainOutput();
  } else {
    *report.mutable_finished() = Finished(status.WithContext("starting the task"));
  }
  Publish(std::move(report));
}

Status TaskRunner::FetchInputs() {
  uint64_t total = 0, before = 0;
  for (const wire::ObjectRef& input : start_.inputs()) total += input.bytes();
  // What it takes may be longer than a task has to start, as long as it moves.
  MonotonicTime told = RealClock().Now();
  const auto arrived = [&](uint64_t bytes) {
    if (RealClock().Now() - told < kFetchReport) return;
    told = RealClock().Now();
    wire::TaskReport report;
    report.mutable_progress()->set_phase("fetching its inputs");
    if (total > 0) {
      report.mutable_progress()->set_phase_done(static_cast<double>(before + bytes) /
                                                static_cast<double>(total));
    }
    Publish(std::move(report));
  };
  for (const wire::ObjectRef& input : start_.inputs()) {
    LEPTON_RETURN_IF_ERROR(objects_->Fetch(input, stopped_, arrived).WithContext("input"));
    before += input.bytes();
  }
  return stopped_ ? Cancelled("stopped before it started") : Status::Ok();
}

Status TaskRunner::StartProcess() {
  LEPTON_ASSIGN_OR_RETURN(child_, ChildProcess::Start(command_));
  wire::TaskDown down;
  *down.mutable_start() = start_;
  outgoing_ = wire::EncodeFrame(down);
  if (start_.pulse_ms() > 0) {
    // Its first pulse may come late, by the whole budget: a process has to be loaded first.
    const Duration half = std::chrono::milliseconds(start_.hang_ms());
    last_pulse_ = RealClock().Now() + std::max(half, kLeastToStart - half);
  }
  wire::TaskReport report;
  report.mutable_started()->set_pid(child_.pid());
  Publish(std::move(report));
  return Status::Ok();
}

void TaskRunner::Supervise() {
  do {
    PassOrders();
    CheckPulse();
  } while (!ProcessEnded(NextTimeoutMs()));
  // What the task said last is still in its socket.
  ReadReports();
}

bool TaskRunner::ProcessEnded(int timeout_ms) {
  const short socket_events = static_cast<short>(POLLIN | (outgoing_.empty() ? 0 : POLLOUT));
  pollfd fds[] = {{child_.pidfd(), POLLIN, 0},
                  {wake_.get(), POLLIN, 0},
                  {child_.socket().get(), socket_events, 0},
                  {child_.output(0).get(), POLLIN, 0},
                  {child_.output(1).get(), POLLIN, 0}};
  const MonotonicTime asked_at = RealClock().Now();
  const int ready = poll(fds, 5, timeout_ms);
  if (timeout_ms >= 0) ForgiveFreeze(asked_at + std::chrono::milliseconds(timeout_ms));
  if (ready < 0) return false;
  if (fds[1].revents != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t n = read(wake_.get(), &count, sizeof(count));
  }
  if ((fds[2].revents & (POLLIN | POLLHUP | POLLERR)) != 0) ReadReports();
  for (int stream : {0, 1}) {
    if (fds[3 + stream].revents != 0) ReadOutput(stream);
  }
  FlushLog(false);
  return fds[0].revents != 0;
}

// Sends what waits for the task, and the signals that are due.
void TaskRunner::PassOrders() {
  bool terminate = false;
  bool kill = false;
  {
    std::lock_guard lock(mutex_);
    for (const wire::TaskDown& order : orders_) outgoing_ += wire::EncodeFrame(order);
    orders_.clear();
    terminate = std::exchange(terminate_, false);
    kill = kill_at_ && RealClock().Now() >= *kill_at_;
  }
  while (!outgoing_.empty() && child_.socket().valid()) {
    const ssize_t n = send(child_.socket().get(), outgoing_.data(), outgoing_.size(),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      outgoing_.erase(0, static_cast<size_t>(n));
    } else if (errno != EINTR) {
      if (errno != EAGAIN) outgoing_.clear();  // it closed its end; its exit says the rest
      break;
    }
  }
  if (terminate) child_.Signal(SIGTERM);
  if (kill && !killed_) {
    child_.Signal(SIGKILL);
    killed_ = true;
  }
}

// A frozen agent's task was frozen with it, most likely (a container that is paused, a job that
// Slurm suspends), and may run again later than it does. Its silence begins anew.
void TaskRunner::ForgiveFreeze(MonotonicTime due) {
  const MonotonicTime now = RealClock().Now();
  if (!OwesPulses() || !WasFrozen(due, now, HangLimit())) return;
  last_pulse_ = std::max(*last_pulse_, now);
  moved_at_ = now;
}

// Until its last word: what a process does as it exits (a library's handlers, memory that is
// unmapped) is done without its listening thread.
bool TaskRunner::OwesPulses() const {
  return last_pulse_ && start_.hang_ms() > 0 && !killed_ && !finished_;
}

// A process whose listening thread is silent is stopped or stuck: SIGKILL is all that it can take.
void TaskRunner::CheckPulse() {
  if (!OwesPulses()) return;
  const Duration silence = RealClock().Now() - *last_pulse_;
  if (silence < HangLimit()) return;
  KillHung(silence, "no sign of life");
}

void TaskRunner::KillHung(Duration since, const std::string& why) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  silent_since_ms_ = RealClock().WallMs() - ms;
  hung_ = why + " for " + std::to_string(ms) + " ms";
  log_.Append(1, "[lepton: " + hung_ + "; killed]\n", RealClock().Now());
  child_.Signal(SIGKILL);
  killed_ = true;
}

// The process answers, but does its training thread move? A slow one does, between any two kernels;
// one that has paused for long before may do so again.
void TaskRunner::OnPulse(const wire::TaskPulse& pulse) {
  const MonotonicTime now = RealClock().Now();
  last_pulse_ = now;
  const bool still =
      pulse_.computing() && pulse.computing() && pulse.progress() == pulse_.progress();
  if (!still) {
    if (pulse_.computing()) longest_pause_ = std::max(longest_pause_, now - moved_at_);
    moved_at_ = now;
    pulse_ = pulse;
    return;
  }
  const Duration limit = std::max(HangLimit(), 4 * longest_pause_);
  if (start_.hang_ms() == 0 || killed_ || now - moved_at_ < limit) return;
  KillHung(now - moved_at_, "its training thread stands still in " + pulse_.doing() +
                                ", though its process answers,");
}

void TaskRunner::ReadReports() {
  if (!child_.socket().valid()) return;
  const Status filled = reader_.Fill(child_.socket().get());
  while (true) {
    Result<std::optional<std::string>> frame = reader_.Next();
    wire::TaskUp up;
    if (!frame.ok() || (frame->has_value() && !up.ParseFromString(**frame))) {
      log_.Append(1, "[lepton: the task broke the protocol to its agent; killed]\n",
                  RealClock().Now());
      child_.Signal(SIGKILL);
      child_.socket().Reset();
      return;
    }
    if (!frame->has_value()) break;
    wire::TaskReport report;
    switch (up.body_case()) {
      case wire::TaskUp::kEndpoint:
        *report.mutable_endpoint() = std::move(*up.mutable_endpoint());
        break;
      case wire::TaskUp::kProgress:
        *report.mutable_progress() = std::move(*up.mutable_progress());
        break;
      case wire::TaskUp::kCheckpoint:
        *report.mutable_checkpoint() = std::move(*up.mutable_checkpoint());
        break;
      case wire::TaskUp::kCheckpointSlice:
        *report.mutable_checkpoint_slice() = std::move(*up.mutable_checkpoint_slice());
        break;
      case wire::TaskUp::kReady:
        *report.mutable_ready() = std::move(*up.mutable_ready());
        break;
      case wire::TaskUp::kRecovered:
        *report.mutable_recovered() = std::move(*up.mutable_recovered());
        break;
      case wire::TaskUp::kStraggler:
        *report.mutable_straggler() = *up.mutable_straggler();
        break;
      case wire::TaskUp::kBusy:
        *report.mutable_busy() = *up.mutable_busy();
        break;
      case wire::TaskUp::kGroupFaults:
        *report.mutable_group_faults() = std::move(*up.mutable_group_faults());
        break;
      case wire::TaskUp::kShardsReady:
        *report.mutable_shards_ready() = *up.mutable_shards_ready();
        break;
      case wire::TaskUp::kShardDone:
        *report.mutable_shard_done() = std::move(*up.mutable_shard_done());
        break;
      case wire::TaskUp::kPulse:
        OnPulse(up.pulse());
        continue;
      case wire::TaskUp::kFinished:  // told when the process has ended
        OnFinished(std::move(*up.mutable_finished()));
        continue;
      case wire::TaskUp::BODY_NOT_SET:
        continue;
    }
    Publish(std::move(report));
  }
  if (!filled.ok()) child_.socket().Reset();
}

void TaskRunner::OnFinished(wire::TaskFinished finished) {
  finished_ = std::move(finished);
  // Its gang waits for a result, and not for the end of one that has none. But ranks that were told
  // to stop together may wait for each other at their end, as those of MPI do (MPI_Finalize); the
  // order to stop has its own grace.
  const bool together =
      finished_->code() == StatusCodeName(StatusCode::kCancelled) && !start_.elastic();
  const bool hurry =
      finished_->code() != StatusCodeName(StatusCode::kOk) && !together && start_.hang_ms() > 0;
  const MonotonicTime exit_by =
      RealClock().Now() + (hurry ? std::min(HangLimit(), exit_limit_) : exit_limit_);
  std::lock_guard lock(mutex_);
  if (!kill_at_ || exit_by < *kill_at_) kill_at_ = exit_by;
}

void TaskRunner::ReadOutput(int stream) {
  UniqueFd& fd = child_.output(stream);
  if (!fd.valid()) return;
  char bytes[kReadBytes];
  const ssize_t n = read(fd.get(), bytes, sizeof(bytes));
  const MonotonicTime now = RealClock().Now();
  if (n > 0) {
    log_.Append(stream, {bytes, static_cast<size_t>(n)}, now);
  } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
    log_.Finish(stream, now);
    fd.Reset();
  }
}

// After the exit: to the end of both pipes, unless a stray descendant holds them open.
void TaskRunner::DrainOutput() {
  const Deadline deadline = Deadline::In(kDrainAfterExit);
  while ((child_.output(0).valid() || child_.output(1).valid()) && !deadline.Expired()) {
    pollfd fds[] = {{child_.output(0).get(), POLLIN, 0}, {child_.output(1).get(), POLLIN, 0}};
    poll(fds, 2, deadline.LeftMs());
    for (int stream : {0, 1}) {
      if (fds[stream].revents != 0) ReadOutput(stream);
    }
  }
  for (int stream : {0, 1}) log_.Finish(stream, RealClock().Now());
  FlushLog(true);
}

void TaskRunner::FlushLog(bool last) {
  const MonotonicTime now = RealClock().Now();
  if (!last && now - log_flushed_ < kLogFlush) return;
  log_flushed_ = now;
  std::vector<std::string> lines = log_.Take(now, last);
  for (size_t begin = 0; begin < lines.size(); begin += kLinesPerReport) {
    wire::TaskReport report;
    const size_t end = std::min(lines.size(), begin + kLinesPerReport);
    for (size_t i = begin; i < end; ++i) {
      VLOG(1) << start_.task_id() << ": " << lines[i];
      report.mutable_log()->add_lines(std::move(lines[i]));
    }
    Publish(std::move(report));
  }
}

void TaskRunner::Publish(wire::TaskReport report) {
  report.set_task_id(start_.task_id());
  report.set_wall_ms(RealClock().WallMs());
  events_.report(std::move(report));
}

int TaskRunner::NextTimeoutMs() const {
  MonotonicTime next = MonotonicTime::max();
  {
    std::lock_guard lock(mutex_);
    if (kill_at_ && !killed_) next = *kill_at_;
  }
  if (log_.HasLines()) next = std::min(next, log_flushed_ + kLogFlush);
  if (OwesPulses()) {
    const MonotonicTime look = RealClock().Now() + HangLimit() / kLooksInSilence;
    next = std::min({next, *last_pulse_ + HangLimit(), look});
  }
  if (next == MonotonicTime::max()) return -1;
  return Deadline(next).LeftMs();
}

wire::TaskFinished TaskRunner::Conclude(const ChildProcess::Exit& exit) {
  wire::TaskFinished finished;
  if (finished_) {
    // All that it refers to was written and told before it: however the process went then, it
    // holds.
    finished = std::move(*finished_);
    finished.set_exit_status(exit.signal == 0 ? exit.status : kKilledExit + exit.signal);
    if (exit.signal == 0) return finished;
    log_.Append(1,
                "[lepton: killed by signal " + SignalName(exit.signal) +
                    " as it exited; what it said last holds]\n",
                RealClock().Now());
    return finished;
  } else if (silent_since_ms_ > 0) {
    finished = Finished(Aborted("hung: " + hung_ + ": killed"));
    finished.set_silent_since_ms(silent_since_ms_);
  } else if (stopped_) {
    std::lock_guard lock(mutex_);
    finished = Finished(Cancelled("stopped: " + stop_reason_ +
                                  (killed_ ? "; killed, since it did not end in time" : "")));
  } else if (exit.signal != 0) {
    finished = Finished(Aborted("killed by signal " + SignalName(exit.signal)));
  } else {
    finished = Finished(
        Internal("exited with status " + std::to_string(exit.status) + " without a result"));
  }
  finished.set_exit_status(exit.status);
  finished.set_signal(exit.signal);
  return finished;
}

}  // namespace lepton::worker
