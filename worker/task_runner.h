// One task on this worker, from its inputs to its exit:
//
//   fetch inputs -> start the process -> pass orders down and reports up -> reap -> finished
//
// While inputs come it reports progress, with a phase: a sign of life.
//
// Threads: made and called by the agent's thread; all the waiting is on the runner's own thread,
// which is the parent of the task process as far as PR_SET_PDEATHSIG is concerned. `Events` are
// called on that thread.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/wire/channel.h"
#include "worker/child_process.h"
#include "worker/log_lines.h"
#include "worker/object_transfer.h"

namespace lepton::worker {

class TaskRunner {
 public:
  struct Events {
    // In order. The last one is `finished`, when the process is gone.
    std::function<void(wire::TaskReport)> report;
  };
  // `command`: see AgentOptions.task_command, with all but the orders' own arguments.
  // `exit_limit`: see AgentOptions.
  TaskRunner(wire::StartTask start, ChildProcess::Command command, ObjectTransfer* objects,
             Duration exit_limit, Events events);
  ~TaskRunner();  // kills the task if it still runs; quick then

  // Of the worker, that are its own.
  uint32_t slots() const { return start_.no_slot() ? 0 : start_.slots(); }
  // That its job gives a rank to leave in; 0: none of its own.
  Duration leave_grace() const { return std::chrono::milliseconds(start_.leave_grace_ms()); }
  void Deliver(wire::TaskGroup group);
  void Deliver(wire::TaskShards shards);
  // StopTask and SIGTERM now, SIGKILL after `grace`. A later call can only shorten the grace.
  // An elastic gang goes on without a task that is stopped `alone`, after the step that it is in.
  void Stop(Duration grace, const std::string& reason, bool alone = false, bool at_once = false);
  void Kill(const std::string& reason) { Stop(Duration::zero(), reason); }

 private:
  void Run();
  Status FetchInputs();
  Status StartProcess();
  void Supervise();
  bool ProcessEnded(int timeout_ms);
  void PassOrders();
  void ForgiveFreeze(MonotonicTime due);
  Duration HangLimit() const { return std::chrono::milliseconds(start_.hang_ms()); }
  bool OwesPulses() const;
  void CheckPulse();
  void OnPulse(const wire::TaskPulse& pulse);
  void KillHung(Duration since, const std::string& why);
  void ReadReports();
  void OnFinished(wire::TaskFinished finished);
  void ReadOutput(int stream);
  void DrainOutput();
  void FlushLog(bool last);
  void Publish(wire::TaskReport report);
  int NextTimeoutMs() const;
  wire::TaskFinished Conclude(const ChildProcess::Exit& exit);

  const wire::StartTask start_;
  ChildProcess::Command command_;
  ObjectTransfer* const objects_;
  const Duration exit_limit_;
  const Events events_;

  std::atomic<bool> stopped_{false};
  UniqueFd wake_;
  mutable std::mutex mutex_;
  std::deque<wire::TaskDown> orders_;  // not yet sent
  std::optional<MonotonicTime> kill_at_;
  std::string stop_reason_;
  bool terminate_ = false;  // SIGTERM is still to be sent

  // The runner thread's own.
  ChildProcess child_;
  std::string outgoing_;  // bytes of orders, for when the socket takes them
  wire::FrameReader reader_;
  LogLines log_;
  std::optional<wire::TaskFinished> finished_;  // what the task said of itself: its last word
  bool killed_ = false;                         // by us, since it overran its grace
  std::optional<MonotonicTime> last_pulse_;     // of a task that gives some
  wire::TaskPulse pulse_;
  MonotonicTime moved_at_{};     // when its training thread was last seen to move, or to wait
  Duration longest_pause_{};     // of that thread while it computed, so far
  int64_t silent_since_ms_ = 0;  // wall; > 0: killed since it gave none any more, or
  std::string hung_;             // since that thread stood still: how
  MonotonicTime log_flushed_{};
  std::thread thread_;
};

}  // namespace lepton::worker
