// The agent's state and its one thread. Everything that happens (a message, a report of a task, a
// finished upload) is posted here as a piece of work; nothing on this thread waits.
//
//   connecting --connected: Hello--> greeting --Welcome: replay--> serving
//       ^                               |                             |
//       +------ nothing heard for half a lease, or a new connection --+
//
// and, whatever the connection is: working -> draining (no new tasks) -> stopping (tasks are told
// to end) -> done.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "storage/objects/object_store.h"
#include "worker/agent.h"
#include "worker/cpu_shares.h"
#include "worker/gpu_shares.h"
#include "worker/object_cache.h"
#include "worker/object_transfer.h"
#include "worker/report_outbox.h"
#include "worker/scratch_folder.h"
#include "worker/task_runner.h"
#include "worker/uploader.h"

namespace lepton::worker {

class Agent::Loop {
 public:
  explicit Loop(AgentOptions options);
  ~Loop();
  Status Open();
  Status Run();
  void Stop();  // async-signal-safe

  const AgentOptions& options() const { return options_; }

 private:
  enum class Link { kConnecting, kGreeting, kServing };
  enum class Phase { kWorking, kDraining, kStopping };

  void Post(std::function<void()> work);
  void RunPosted();
  int NextTimeoutMs() const;
  void ForgiveFreeze(MonotonicTime due);
  void OnTime(MonotonicTime now);
  void WatchLink(MonotonicTime now);
  bool Uploads(MonotonicTime now) const;
  bool Done(MonotonicTime now);

  // The link: agent_link.cc
  Status OpenChannel();
  void OnConnected();
  void OnRejected(const Status& status);
  void OnMessage(wire::ToWorker message);
  void OnWelcome(const wire::Welcome& welcome);
  void OnAck(const wire::ReportAck& ack);
  void OnRefused(const wire::Refused& refused);
  void OnDrain(const wire::Drain& drain);
  void SendHello();
  void SendHeartbeat();
  void SendReports();
  void SendGoodbye();
  void LoseLink();
  void LookForCoordinator(MonotonicTime now);

  // The tasks: agent_tasks.cc
  void OnStartTask(wire::StartTask start);
  void OnStopTask(const wire::StopTask& stop);
  void OnReport(wire::TaskReport report);
  void Refuse(const wire::StartTask& start, const Status& why);
  // Of a task that never had a runner.
  void TellEnd(const std::string& task_id, const Status& why, bool refused);
  void ForgetTask(const std::string& task_id);
  // `leave`: ranks of elastic gangs have the time that their jobs give them to leave in, since
  // there is a coordinator for them to meet through.
  void StopAll(const std::string& reason, Status result, bool leave = false);
  ChildProcess::Command TaskCommand(const wire::StartTask& start, const CpuShare& share,
                                    const GpuShare& gpu) const;
  std::shared_ptr<const CpuShare> TakeShare(int slots);
  std::shared_ptr<const GpuShare> TakeGpu(const wire::StartTask& start);
  uint32_t UsedSlots() const;
  void RememberEnded(const std::string& task_id);

  AgentOptions options_;
  const std::string incarnation_;
  std::unique_ptr<ScratchFolder> scratch_;
  std::unique_ptr<storage::ObjectStore> store_;
  std::unique_ptr<ObjectCache> cache_;
  std::optional<CpuShares> cpu_shares_;  // made with the first task
  std::optional<GpuShares> gpu_shares_;  // with the first that asks for one

  UniqueFd wake_;
  std::atomic<bool> stop_requested_{false};
  std::mutex mutex_;
  std::deque<std::function<void()>> posted_;

  Link link_ = Link::kConnecting;
  MonotonicTime last_heard_{};
  MonotonicTime greeted_{};
  Duration heartbeat_ = std::chrono::seconds(1);
  Duration lease_ = std::chrono::seconds(10);
  MonotonicTime next_heartbeat_{};
  MonotonicTime next_look_{}, next_complaint_{};
  uint64_t heartbeats_ = 0;
  int rejections_ = 0;

  Phase phase_ = Phase::kWorking;
  Status result_;
  MonotonicTime give_up_at_ = MonotonicTime::max();   // stopping: leave whatever is unfinished
  MonotonicTime most_until_ = MonotonicTime::max();   // stopping: not for uploads either
  MonotonicTime drain_until_ = MonotonicTime::max();  // draining: then stop

  ReportOutbox outbox_;
  std::set<std::string> ended_;  // a late or repeated StartTask must not run them again
  std::deque<std::string> ended_order_;
  std::set<std::string> ran_;  // ended, and the coordinator may not know it yet
  // In the order of construction: each uses the ones above until it is destroyed.
  std::unique_ptr<wire::DealerChannel> channel_;
  std::unique_ptr<ObjectTransfer> objects_;
  std::unique_ptr<Uploader> uploader_;
  std::map<std::string, std::unique_ptr<TaskRunner>> runners_;
};

}  // namespace lepton::worker
