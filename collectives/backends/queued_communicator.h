// What every back-end's communicator shares: argument checks, deadlines, one operation at a time,
// the asynchronous queue and its progress thread, and failures that stick.
//
// A derived class implements Execute, and calls Drain() first in its destructor, since queued
// operations run until then.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "collectives/algorithms/algorithm.h"
#include "collectives/communicator.h"
#include "collectives/failure.h"

namespace lepton::collectives {

class QueuedCommunicator : public Communicator {
 public:
  ~QueuedCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Status AllReduce(const void* in, void* out, size_t count, DataType type, ReduceOp op) override;
  Status ReduceScatter(const void* in, void* out, size_t count, DataType type,
                       ReduceOp op) override;
  Status AllGather(const void* in, void* out, size_t count, DataType type) override;
  Status Broadcast(void* data, size_t count, DataType type, int root) override;
  Status Gather(const void* in, void* out, size_t count, DataType type, int root) override;
  Status Scatter(const void* in, void* out, size_t count, DataType type, int root) override;
  Status AllToAll(const void* in, void* out, size_t count, DataType type) override;
  Status Barrier() override;
  Status Send(const void* data, size_t count, DataType type, int peer) override;
  Status Recv(void* data, size_t count, DataType type, int peer) override;
  HandlePtr AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                           ReduceOp op) override;
  HandlePtr ReduceScatterAsync(const void* in, void* out, size_t count, DataType type,
                               ReduceOp op) override;
  HandlePtr AllToAllAsync(const void* in, void* out, size_t count, DataType type) override;
  HandlePtr AllGatherAsync(const void* in, void* out, size_t count, DataType type) override;
  HandlePtr BroadcastAsync(void* data, size_t count, DataType type, int root) override;
  HandlePtr GatherAsync(const void* in, void* out, size_t count, DataType type, int root) override;
  HandlePtr ScatterAsync(const void* in, void* out, size_t count, DataType type, int root) override;
  HandlePtr BarrierAsync() override;
  HandlePtr SendAsync(const void* data, size_t count, DataType type, int peer) override;
  HandlePtr RecvAsync(void* data, size_t count, DataType type, int peer) override;
  HandlePtr SendRecvAsync(const ToPeer& to, const FromPeer& from, DataType type) override;
  Status status() const override { return failure_->raised() ? failure_->cause() : Status(); }
  void Abort(Status cause) override;

 protected:
  QueuedCommunicator(int rank, int size, const Options& options, std::shared_ptr<Failure> failure);

  // Runs one checked operation of a group of at least two to its end. Never called twice at once.
  // Any error but kInvalidArgument breaks the group.
  virtual Status Execute(const Call& call, Deadline deadline) = 0;
  // Called once, on the rank where the failure began: tells the peers. Any thread.
  virtual void TellPeers(const std::string& message) = 0;
  // Finishes what is queued and stops the progress thread. Idempotent.
  void Drain();

  Failure& failure() { return *failure_; }

 private:
  class QueuedHandle;
  struct Pending;

  Status Check(const Call& call) const;
  Status RunNow(const Call& call);
  HandlePtr RunLater(const Call& call);
  Status Perform(const Call& call);
  Status Alone(const Call& call) const;
  void ProgressLoop();

  const int rank_;
  const int size_;
  const Options options_;
  std::shared_ptr<Failure> failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Pending>> queue_;
  bool busy_ = false;
  bool stopping_ = false;
  std::thread progress_;  // started by the first asynchronous call
};

}  // namespace lepton::collectives
