#include "worker/shard_orders.h"

#include <algorithm>
#include <utility>

namespace lepton::worker {

void ShardOrders::Ready(int64_t rows, int64_t shard_rows) {
  {
    std::lock_guard lock(mutex_);
    own_rows_ = rows;
  }
  wire::TaskUp up;
  up.mutable_shards_ready()->set_rows(rows);
  up.mutable_shards_ready()->set_shard_rows(shard_rows);
  report_(up);
}

Status ShardOrders::Ended() const {
  if (!stop_.empty()) return Cancelled("stopped: " + stop_);
  if (!leave_.empty()) return Cancelled("told to leave the gang: " + leave_);
  return Status::Ok();
}

Result<Shard> ShardOrders::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !Ended().ok() || !queue_.empty(); });
  LEPTON_RETURN_IF_ERROR(Ended());
  if (order_->rows() != own_rows_) {
    return DataLoss("the data has " + std::to_string(own_rows_) + " rows on this worker, and " +
                    std::to_string(order_->rows()) + " on the first that prepared it");
  }
  Shard shard;
  shard.index = queue_.front();
  shard.first = shard.index * order_->shard_rows();
  shard.last = std::min(order_->rows(), shard.first + order_->shard_rows());
  if (shard.first >= shard.last) {
    return Internal("shard " + std::to_string(shard.index) + " is behind the last row");
  }
  return shard;
}

Status ShardOrders::GoOn(const Shard& shard, Duration left) {
  std::lock_guard lock(mutex_);
  if (!stop_.empty()) return Ended();
  if (!leave_.empty() && RealClock().Now() + left > leave_by_) return Ended();
  if (!queue_.empty() && queue_.front() == shard.index) return Status::Ok();
  return Aborted("shard " + std::to_string(shard.index) + " is another rank's");
}

void ShardOrders::Done(const wire::TaskShardDone& done) {
  {
    std::lock_guard lock(mutex_);
    reported_.push_back(done.shard());
    std::erase(queue_, done.shard());
  }
  wire::TaskUp up;
  *up.mutable_shard_done() = done;
  report_(up);
}

void ShardOrders::OnOrder(const wire::TaskShards& order) {
  {
    std::lock_guard lock(mutex_);
    order_ = order;
    queue_.clear();
    const auto unseen = reported_.begin() +
                        static_cast<ptrdiff_t>(std::min<size_t>(order.seen(), reported_.size()));
    for (const uint32_t shard : order.shards()) {
      if (std::find(unseen, reported_.end(), shard) == reported_.end()) queue_.push_back(shard);
    }
  }
  changed_.notify_all();
}

void ShardOrders::OnStop(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (stop_.empty()) stop_ = reason.empty() ? "no reason given" : reason;
  changed_.notify_all();
}

void ShardOrders::OnLeave(const std::string& reason, Duration grace) {
  std::lock_guard lock(mutex_);
  if (!leave_.empty()) return;
  leave_ = reason.empty() ? "no reason given" : reason;
  leave_by_ = RealClock().Now() + grace / 2;
  changed_.notify_all();
}

}  // namespace lepton::worker
