// A gang whose ranks are threads of the test: the Communicator contract (fixed tree over ranks,
// abort, deadlines) without a transport.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "collectives/algorithms/tree_reduce.h"
#include "collectives/communicator.h"

namespace lepton::testing {

using collectives::DataType;
using collectives::ReduceOp;

// What the ranks share: a place for each rank's input and a barrier that can fail.
class ThreadGang {
 public:
  explicit ThreadGang(int size) : size_(size), inputs_(size) {}
  int size() const { return size_; }

  void Abort(const Status& cause) {
    const std::lock_guard lock(mutex_);
    if (cause_.ok()) cause_ = cause;
    changed_.notify_all();
  }

  Status status() {
    const std::lock_guard lock(mutex_);
    return cause_.ok() ? cause_ : Aborted(cause_.message());
  }

  // Shows every rank's bytes to every rank: `read` runs between two barriers.
  Status Exchange(int rank, std::vector<char> bytes,
                  const std::function<void(const std::vector<std::vector<char>>&)>& read) {
    inputs_[rank] = std::move(bytes);
    LEPTON_RETURN_IF_ERROR(Meet());
    read(inputs_);
    return Meet();
  }

  // One message from rank to rank.
  Status Put(int from, int to, std::vector<char> bytes) {
    const std::lock_guard lock(mutex_);
    if (!cause_.ok()) return Aborted(cause_.message());
    mail_[{from, to}].push_back(std::move(bytes));
    changed_.notify_all();
    return Status::Ok();
  }
  Result<std::vector<char>> Take(int from, int to) {
    std::unique_lock lock(mutex_);
    std::deque<std::vector<char>>& box = mail_[{from, to}];
    const bool came = changed_.wait_for(lock, std::chrono::seconds(30),
                                        [&] { return !box.empty() || !cause_.ok(); });
    if (box.empty()) return came ? Aborted(cause_.message()) : DeadlineExceeded("no message");
    std::vector<char> bytes = std::move(box.front());
    box.pop_front();
    return bytes;
  }

  Status Meet() {
    std::unique_lock lock(mutex_);
    if (!cause_.ok()) return Aborted(cause_.message());
    const uint64_t round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
      return Status::Ok();
    }
    const bool met = changed_.wait_for(lock, std::chrono::seconds(30),
                                       [&] { return round_ != round || !cause_.ok(); });
    if (round_ != round) return Status::Ok();
    return met ? Aborted(cause_.message()) : DeadlineExceeded("a rank did not come");
  }

 private:
  const int size_;
  std::vector<std::vector<char>> inputs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  uint64_t round_ = 0;
  Status cause_;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> mail_;
};

class ThreadCommunicator final : public collectives::Communicator {
 public:
  // `leaves` as of GroupSpec.
  ThreadCommunicator(std::shared_ptr<ThreadGang> gang, int rank, int leaves = 0)
      : gang_(std::move(gang)),
        rank_(rank),
        leaves_(leaves > 0 ? leaves : gang_->size()),
        holders_(gang_->size()) {}

  int rank() const override { return rank_; }
  int size() const override { return gang_->size(); }
  std::string_view backend() const override { return "threads"; }

  Status AllReduce(const void* in, void* out, size_t count, DataType type, ReduceOp op) override {
    const size_t bytes = count * ElementSize(type);
    const char* data = static_cast<const char*>(in);
    return gang_->Exchange(rank_, {data, data + bytes}, [&](const auto& inputs) {
      std::vector<const void*> pointers;
      for (const auto& input : inputs) pointers.push_back(input.data());
      collectives::TreeReduce(out, pointers.data(),
                              collectives::TreeSplits(size(), leaves_, holders_), count, type, op);
    });
  }
  Status Broadcast(void* data, size_t count, DataType type, int root) override {
    const char* bytes = static_cast<const char*>(data);
    const size_t size = count * ElementSize(type);
    return gang_->Exchange(rank_, {bytes, bytes + size}, [&](const auto& inputs) {
      std::memcpy(data, inputs[root].data(), size);
    });
  }
  Status Barrier() override { return gang_->Meet(); }
  Status status() const override { return gang_->status(); }
  void Abort(Status cause) override { gang_->Abort(cause); }

  Status ReduceScatter(const void* in, void* out, size_t count, DataType type,
                       ReduceOp op) override {
    const char* data = static_cast<const char*>(in);
    const size_t bytes = count * ElementSize(type);
    return gang_->Exchange(
        rank_, {data, data + bytes * static_cast<size_t>(size())}, [&](const auto& inputs) {
          std::vector<const void*> parts;
          for (const auto& input : inputs) {
            parts.push_back(input.data() + static_cast<size_t>(rank_) * bytes);
          }
          collectives::TreeReduce(out, parts.data(),
                                  collectives::TreeSplits(size(), leaves_, holders_), count, type,
                                  op);
        });
  }
  Status AllGather(const void* in, void* out, size_t count, DataType type) override {
    const char* data = static_cast<const char*>(in);
    const size_t bytes = count * ElementSize(type);
    return gang_->Exchange(rank_, {data, data + bytes}, [&](const auto& inputs) {
      for (size_t r = 0; r < inputs.size(); ++r) {
        std::memcpy(static_cast<char*>(out) + r * bytes, inputs[r].data(), bytes);
      }
    });
  }
  Status Send(const void* data, size_t count, DataType type, int peer) override {
    const char* bytes = static_cast<const char*>(data);
    return gang_->Put(rank_, peer, {bytes, bytes + count * ElementSize(type)});
  }
  Status Recv(void* data, size_t count, DataType type, int peer) override {
    LEPTON_ASSIGN_OR_RETURN(const std::vector<char> bytes, gang_->Take(peer, rank_));
    if (bytes.size() != count * ElementSize(type)) return InvalidArgument("a message's size");
    if (!bytes.empty()) std::memcpy(data, bytes.data(), bytes.size());
    return Status::Ok();
  }
  // At once: a rank waits for the others where it calls this.
  Status Gather(const void*, void*, size_t, DataType, int) override { return Unused(); }
  Status Scatter(const void*, void*, size_t, DataType, int) override { return Unused(); }
  Status AllToAll(const void* in, void* out, size_t count, DataType type) override {
    const char* data = static_cast<const char*>(in);
    const size_t bytes = count * ElementSize(type);
    return gang_->Exchange(
        rank_, {data, data + bytes * static_cast<size_t>(size())}, [&](const auto& inputs) {
          for (size_t r = 0; r < inputs.size(); ++r) {
            std::memcpy(static_cast<char*>(out) + r * bytes,
                        inputs[r].data() + static_cast<size_t>(rank_) * bytes, bytes);
          }
        });
  }
  collectives::HandlePtr AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                                        ReduceOp op) override {
    ++asynchronous;
    return std::make_unique<DoneHandle>(AllReduce(in, out, count, type, op));
  }
  collectives::HandlePtr ReduceScatterAsync(const void* in, void* out, size_t count, DataType type,
                                            ReduceOp op) override {
    ++asynchronous;
    return std::make_unique<DoneHandle>(ReduceScatter(in, out, count, type, op));
  }
  collectives::HandlePtr AllToAllAsync(const void* in, void* out, size_t count,
                                       DataType type) override {
    ++asynchronous;
    return std::make_unique<DoneHandle>(AllToAll(in, out, count, type));
  }
  collectives::HandlePtr BroadcastAsync(void* data, size_t count, DataType type,
                                        int root) override {
    return std::make_unique<DoneHandle>(Broadcast(data, count, type, root));
  }
  collectives::HandlePtr GatherAsync(const void*, void*, size_t, DataType, int) override {
    return std::make_unique<DoneHandle>(Unused());
  }
  collectives::HandlePtr ScatterAsync(const void*, void*, size_t, DataType, int) override {
    return std::make_unique<DoneHandle>(Unused());
  }
  collectives::HandlePtr BarrierAsync() override { return std::make_unique<DoneHandle>(Barrier()); }
  collectives::HandlePtr SendAsync(const void* data, size_t count, DataType type,
                                   int peer) override {
    return std::make_unique<DoneHandle>(Send(data, count, type, peer));
  }
  collectives::HandlePtr RecvAsync(void* data, size_t count, DataType type, int peer) override {
    return std::make_unique<DoneHandle>(Recv(data, count, type, peer));
  }
  collectives::HandlePtr SendRecvAsync(const ToPeer& to, const FromPeer& from,
                                       DataType type) override {
    Status status = Send(to.in, to.count, type, to.peer);
    if (status.ok()) status = Recv(from.out, from.count, type, from.peer);
    return std::make_unique<DoneHandle>(status);
  }
  void HoldLeaves(int holders) override { holders_ = holders; }

  collectives::HandlePtr AllGatherAsync(const void* in, void* out, size_t count,
                                        DataType type) override {
    ++asynchronous;
    return std::make_unique<DoneHandle>(AllGather(in, out, count, type));
  }

  int asynchronous = 0;  // calls

 private:
  class DoneHandle final : public collectives::Handle {
   public:
    explicit DoneHandle(Status status) : status_(std::move(status)) {}
    bool Done() const override { return true; }
    Status Wait(Deadline) override { return status_; }

   private:
    const Status status_;
  };
  static Status Unused() { return InvalidArgument("training does not use this"); }
  static size_t ElementSize(DataType type) { return collectives::DataTypeSize(type); }

  std::shared_ptr<ThreadGang> gang_;
  const int rank_, leaves_;
  int holders_;
};

}  // namespace lepton::testing
