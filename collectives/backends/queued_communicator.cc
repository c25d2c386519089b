#include "collectives/backends/queued_communicator.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "collectives/group_faults.h"
#include "runtime/base/config.h"
#include "runtime/base/named_thread.h"

namespace lepton::collectives {
namespace {

bool OfPairs(Operation operation) {
  return operation == Operation::kSend || operation == Operation::kRecv ||
         operation == Operation::kSendRecv;
}

}  // namespace

// One asynchronous operation, shared by its handle and the queue.
struct QueuedCommunicator::Pending {
  Call call;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  Status status;

  void Finish(Status result) {
    {
      std::lock_guard lock(mutex);
      status = std::move(result);
      done = true;
    }
    changed.notify_all();
  }
};

class QueuedCommunicator::QueuedHandle final : public Handle {
 public:
  explicit QueuedHandle(std::shared_ptr<Pending> pending) : pending_(std::move(pending)) {}
  ~QueuedHandle() override {
    std::unique_lock lock(pending_->mutex);
    pending_->changed.wait(lock, [this] { return pending_->done; });
  }
  bool Done() const override {
    std::lock_guard lock(pending_->mutex);
    return pending_->done;
  }
  Status Wait(Deadline deadline) override {
    std::unique_lock lock(pending_->mutex);
    // Not wait_until: Deadline::Never() would overflow in it.
    bool done =
        pending_->changed.wait_for(lock, deadline.Left(), [this] { return pending_->done; });
    return done ? pending_->status : DeadlineExceeded("the operation is still running");
  }

 private:
  std::shared_ptr<Pending> pending_;
};

QueuedCommunicator::QueuedCommunicator(int rank, int size, const Options& options,
                                       std::shared_ptr<Failure> failure)
    : rank_(rank), size_(size), options_(options), failure_(std::move(failure)) {}

QueuedCommunicator::~QueuedCommunicator() {
  Drain();
}

void QueuedCommunicator::Drain() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
    stopping_ = true;
  }
  changed_.notify_all();
  if (progress_.joinable()) progress_.join();
}

Status QueuedCommunicator::AllReduce(const void* in, void* out, size_t count, DataType type,
                                     ReduceOp op) {
  return RunNow({Operation::kAllReduce, in, out, count, type, op});
}

Status QueuedCommunicator::ReduceScatter(const void* in, void* out, size_t count, DataType type,
                                         ReduceOp op) {
  return RunNow({Operation::kReduceScatter, in, out, count, type, op});
}

Status QueuedCommunicator::AllGather(const void* in, void* out, size_t count, DataType type) {
  return RunNow({Operation::kAllGather, in, out, count, type});
}

Status QueuedCommunicator::Broadcast(void* data, size_t count, DataType type, int root) {
  return RunNow({Operation::kBroadcast, data, data, count, type, ReduceOp::kSum, root});
}

Status QueuedCommunicator::Gather(const void* in, void* out, size_t count, DataType type,
                                  int root) {
  return RunNow({Operation::kGather, in, out, count, type, ReduceOp::kSum, root});
}

Status QueuedCommunicator::Scatter(const void* in, void* out, size_t count, DataType type,
                                   int root) {
  return RunNow({Operation::kScatter, in, out, count, type, ReduceOp::kSum, root});
}

Status QueuedCommunicator::AllToAll(const void* in, void* out, size_t count, DataType type) {
  return RunNow({Operation::kAllToAll, in, out, count, type});
}

Status QueuedCommunicator::Barrier() {
  return RunNow({Operation::kBarrier});
}

Status QueuedCommunicator::Send(const void* data, size_t count, DataType type, int peer) {
  return RunNow({Operation::kSend, data, nullptr, count, type, ReduceOp::kSum, peer});
}

Status QueuedCommunicator::Recv(void* data, size_t count, DataType type, int peer) {
  return RunNow({Operation::kRecv, nullptr, data, count, type, ReduceOp::kSum, peer});
}

HandlePtr QueuedCommunicator::AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                                             ReduceOp op) {
  return RunLater({Operation::kAllReduce, in, out, count, type, op, 0, /*patient=*/true});
}

HandlePtr QueuedCommunicator::ReduceScatterAsync(const void* in, void* out, size_t count,
                                                 DataType type, ReduceOp op) {
  return RunLater({Operation::kReduceScatter, in, out, count, type, op, 0, /*patient=*/true});
}

HandlePtr QueuedCommunicator::AllToAllAsync(const void* in, void* out, size_t count,
                                            DataType type) {
  return RunLater(
      {Operation::kAllToAll, in, out, count, type, ReduceOp::kSum, 0, /*patient=*/true});
}

HandlePtr QueuedCommunicator::AllGatherAsync(const void* in, void* out, size_t count,
                                             DataType type) {
  return RunLater(
      {Operation::kAllGather, in, out, count, type, ReduceOp::kSum, 0, /*patient=*/true});
}

HandlePtr QueuedCommunicator::BroadcastAsync(void* data, size_t count, DataType type, int root) {
  return RunLater(
      {Operation::kBroadcast, data, data, count, type, ReduceOp::kSum, root, /*patient=*/true});
}

HandlePtr QueuedCommunicator::GatherAsync(const void* in, void* out, size_t count, DataType type,
                                          int root) {
  return RunLater(
      {Operation::kGather, in, out, count, type, ReduceOp::kSum, root, /*patient=*/true});
}

HandlePtr QueuedCommunicator::ScatterAsync(const void* in, void* out, size_t count, DataType type,
                                           int root) {
  return RunLater(
      {Operation::kScatter, in, out, count, type, ReduceOp::kSum, root, /*patient=*/true});
}

HandlePtr QueuedCommunicator::BarrierAsync() {
  return RunLater({.operation = Operation::kBarrier, .patient = true});
}

HandlePtr QueuedCommunicator::SendAsync(const void* data, size_t count, DataType type, int peer) {
  return RunLater(
      {Operation::kSend, data, nullptr, count, type, ReduceOp::kSum, peer, /*patient=*/true});
}

HandlePtr QueuedCommunicator::RecvAsync(void* data, size_t count, DataType type, int peer) {
  return RunLater(
      {Operation::kRecv, nullptr, data, count, type, ReduceOp::kSum, peer, /*patient=*/true});
}

HandlePtr QueuedCommunicator::SendRecvAsync(const ToPeer& to, const FromPeer& from, DataType type) {
  return RunLater({.operation = Operation::kSendRecv,
                   .in = to.in,
                   .out = from.out,
                   .count = to.count,
                   .type = type,
                   .root = to.peer,
                   .patient = true,
                   .received = from.count,
                   .from = from.peer});
}

HandlePtr QueuedCommunicator::RunLater(const Call& call) {
  auto pending = std::make_shared<Pending>();
  pending->call = call;
  Status status = Check(pending->call);
  if (!status.ok()) {
    pending->Finish(std::move(status));
    return std::make_unique<QueuedHandle>(std::move(pending));
  }
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(pending);
    if (!progress_.joinable()) {
      progress_ = NamedThread("collectives", [this] { ProgressLoop(); });
    }
  }
  changed_.notify_all();
  return std::make_unique<QueuedHandle>(std::move(pending));
}

void QueuedCommunicator::Abort(Status cause) {
  if (cause.ok()) cause = Aborted("aborted without a cause");
  std::string message = "rank " + std::to_string(rank_) + " aborted: " + cause.ToString();
  if (failure_->Raise(std::move(cause))) TellPeers(message);
}

Status QueuedCommunicator::Check(const Call& call) const {
  const auto bad = [&call](const std::string& what) {
    return InvalidArgument(std::string(OperationName(call.operation)) + ": " + what);
  };
  const bool root = call.root == rank_;
  bool needs_in = call.operation != Operation::kBarrier && call.operation != Operation::kRecv &&
                  (call.operation != Operation::kScatter || root);
  bool needs_out = call.operation != Operation::kBarrier && call.operation != Operation::kSend &&
                   call.operation != Operation::kSendRecv &&
                   (call.operation != Operation::kGather || root);
  if (call.count > 0 && ((needs_in && call.in == nullptr) || (needs_out && call.out == nullptr))) {
    return bad("null buffer for " + std::to_string(call.count) + " elements");
  }
  if (call.received > 0 && call.out == nullptr) return bad("null buffer for what is received");
  size_t limit = std::numeric_limits<ptrdiff_t>::max() / 8 / static_cast<size_t>(size_);
  if (std::max(call.count, call.received) > limit) return bad("count is beyond any memory");
  for (const int rank : {call.root, call.from}) {
    if (rank >= 0 && rank < size_) continue;
    return bad("rank " + std::to_string(rank) + " is not in 0.." + std::to_string(size_ - 1));
  }
  if (OfPairs(call.operation) && call.root == rank_) return bad("the peer is this rank itself");
  if (call.operation == Operation::kSendRecv && call.from == rank_) {
    return bad("the peer is this rank itself");
  }
  return {};
}

Status QueuedCommunicator::RunNow(const Call& call) {
  LEPTON_RETURN_IF_ERROR(Check(call));
  // There is one caller at a time, and it has never started the progress thread.
  if (!progress_.joinable()) return Perform(call);
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
    busy_ = true;
  }
  Status status = Perform(call);
  {
    std::lock_guard lock(mutex_);
    busy_ = false;
  }
  changed_.notify_all();
  return status;
}

Status QueuedCommunicator::Perform(const Call& call) {
  if (failure_->raised()) return failure_->cause();
  if (size_ == 1) return Alone(call);
  // Where ranks tell that they move, the watcher decides how long to wait.
  const bool watched = options_.link_timeout > Duration{};
  // What two ranks do is no measure of how far the others are.
  const bool pair = OfPairs(call.operation);
  const MonotonicTime now = RealClock().Now();  // once: it is a good part of a short operation
  failure_->activity().Enter(/*all_ranks=*/!pair, now);
  Status status = Execute(call, watched ? Deadline::Never() : Deadline(now + options_.timeout));
  failure_->activity().Leave();
  if (status.ok() || status.code() == StatusCode::kInvalidArgument) return status;
  std::string name(OperationName(call.operation));
  if (status.code() == StatusCode::kDeadlineExceeded) {
    name += " (timeout " + FormatDuration(options_.timeout) + ")";
  }
  Status cause = status.WithContext(name);
  if (failure_->Raise(cause)) {
    CountFailure(std::string(StatusCodeName(cause.code())));
    TellPeers("rank " + std::to_string(rank_) + " gave up: " + cause.message());
  }
  return failure_->cause();
}

// A group of one: every reduction of one value is that value.
Status QueuedCommunicator::Alone(const Call& call) const {
  if (call.in != call.out && call.count > 0) std::memmove(call.out, call.in, call.bytes());
  return {};
}

void QueuedCommunicator::ProgressLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || (!queue_.empty() && !busy_); });
    if (queue_.empty()) return;
    std::shared_ptr<Pending> pending = queue_.front();
    busy_ = true;
    lock.unlock();
    Status status = Perform(pending->call);
    lock.lock();
    queue_.pop_front();
    busy_ = false;
    pending->Finish(std::move(status));
    changed_.notify_all();
  }
}

}  // namespace lepton::collectives
