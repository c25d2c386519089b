// TaskContext over the socket to the agent. A thread of its own listens for orders and for SIGTERM
// (blocked everywhere, read from a descriptor), so that a busy task notices them at once.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "runtime/base/file.h"
#include "runtime/wire/channel.h"
#include "worker/gang_membership.h"
#include "worker/shard_orders.h"
#include "worker/task_context.h"

namespace lepton::worker {

class ProcessContext final : public TaskContext {
 public:
  // `socket` must outlive this and has given `start` already.
  ProcessContext(wire::FrameSocket* socket, wire::StartTask start, spec::JobSpec spec,
                 std::unique_ptr<storage::ObjectStore> objects, std::string bind_address);
  ~ProcessContext() override;

  const wire::StartTask& start() const override { return start_; }
  const spec::JobSpec& spec() const override { return spec_; }
  storage::ObjectStore& objects() override { return *objects_; }
  Result<std::unique_ptr<collectives::Communicator>> JoinGang() override;
  Result<std::unique_ptr<collectives::Communicator>> JoinGroup(collectives::Communicator& gang,
                                                               int color, int leaves) override;
  void ReportProgress(const wire::TaskProgress& progress) override;
  void ReportCheckpoint(const wire::TaskCheckpoint& checkpoint) override;
  void ReportCheckpointSlice(const wire::TaskCheckpointSlice& slice) override;
  void ReportReady(const std::string& host, uint16_t port, double warmup_ms) override;
  void SetResult(const wire::TaskFinished& result) override;
  Membership* membership() override { return membership_.get(); }
  ShardSource* shards() override { return shards_.get(); }
  bool stop_requested() const override { return stop_; }

  // The last report: what SetResult was given, with the task's status.
  void Finish(const Status& status);

 private:
  void Listen();
  void OnOrder(wire::TaskDown order);
  void RequestStop(const std::string& reason);
  void RequestLeave(const std::string& reason, bool at_once);
  int SendPulse();
  void Report(wire::TaskUp up);
  void ReportIfRoom(wire::TaskUp up);
  void TellGroupFaults();
  Result<wire::TaskGroup> AwaitGroup();

  wire::FrameSocket* const socket_;
  const wire::StartTask start_;
  const spec::JobSpec spec_;
  const std::unique_ptr<storage::ObjectStore> objects_;
  const std::string bind_address_;
  UniqueFd signals_;
  UniqueFd wake_;
  MonotonicTime next_pulse_{};  // the listening thread's
  uint64_t pulses_ = 0;
  MonotonicTime faults_told_{};

  std::atomic<bool> stop_{false};
  std::mutex send_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string stop_reason_;
  std::optional<wire::TaskGroup> group_;
  wire::TaskFinished result_;
  std::unique_ptr<GangMembership> membership_;  // of an elastic task that meets its peers
  std::unique_ptr<ShardOrders> shards_;         // of one that takes shards
  std::thread listener_;
};

// Of a gang whose ranks start again from a checkpoint if one is lost. As in one that goes on,
// nobody is limited who moves; one that stands still is given more time, for the way back is
// longer.
collectives::Options GangOptions(const spec::JobSpec& spec);

}  // namespace lepton::worker
