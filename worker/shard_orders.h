// Shards as the coordinator's orders say. Each order is all that there is to do. What this rank has
// reported and the coordinator had not seen as it gave the order is left out, so that orders may be
// late or come twice, and a shard whose object was lost may be asked for again. While the
// coordinator is away a rank goes on with the newest order.
// Threads: the On-calls from the thread that listens to the agent, the rest from the main thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "worker/shard_source.h"

namespace lepton::worker {

class ShardOrders final : public ShardSource {
 public:
  using Report = std::function<void(const wire::TaskUp&)>;
  explicit ShardOrders(Report report) : report_(std::move(report)) {}

  void Ready(int64_t rows, int64_t shard_rows) override;
  Result<Shard> Next() override;
  Status GoOn(const Shard& shard, Duration left) override;
  void Done(const wire::TaskShardDone& done) override;

  void OnOrder(const wire::TaskShards& order);
  void OnStop(const std::string& reason);
  // To go within `grace`: what is in progress is ended if half of that is enough for it.
  void OnLeave(const std::string& reason, Duration grace);

 private:
  Status Ended() const;  // with mutex_

  const Report report_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t own_rows_ = 0;
  std::optional<wire::TaskShards> order_;
  std::deque<uint32_t> queue_;
  std::vector<uint32_t> reported_;  // as done, in that order
  std::string stop_, leave_;        // reasons; empty: no
  MonotonicTime leave_by_{};
};

}  // namespace lepton::worker
