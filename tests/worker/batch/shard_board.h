// The coordinator of a batch prediction, for tests: deals shards to ranks as threads in an order
// that a seed decides, takes ranks away in the middle of a shard, and joins what they did.
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "storage/objects/object_store.h"
#include "worker/shard_source.h"

namespace lepton::testing {

class ShardBoard {
 public:
  explicit ShardBoard(uint32_t seed = 0, double deaths = 0) : dice_(seed), deaths_(deaths) {}

  class Source : public worker::ShardSource {
   public:
    explicit Source(ShardBoard& board) : board_(board) {}
    void Ready(int64_t rows, int64_t shard_rows) override { board_.Ready(rows, shard_rows); }
    Result<worker::Shard> Next() override { return board_.Next(); }
    Status GoOn(const worker::Shard& shard, Duration) override { return board_.GoOn(shard); }
    void Done(const wire::TaskShardDone& done) override { board_.Done(done); }

   private:
    ShardBoard& board_;
  };

  // The file, once all is done.
  std::string File(const storage::ObjectStore& objects) const {
    std::string file;
    for (const auto& [shard, done] : done_) file += objects.Get(done.object()).value();
    return file;
  }
  int64_t rows() const { return rows_; }
  int64_t shard_rows() const { return shard_rows_; }
  double loss() const {
    double loss = 0;
    int64_t tokens = 0;
    for (const auto& [shard, done] : done_) {
      loss += done.loss();
      tokens += done.tokens();
    }
    return loss / static_cast<double>(tokens);
  }
  int died() const { return died_; }
  int differing() const { return differing_; }
  bool complete() const { return rows_ > 0 && undone_.empty(); }

 private:
  void Ready(int64_t rows, int64_t shard_rows) {
    std::lock_guard lock(mutex_);
    if (rows_ > 0) return;
    rows_ = rows;
    shard_rows_ = shard_rows;
    for (int64_t first = 0; first < rows; first += shard_rows) {
      undone_.insert(static_cast<uint32_t>(first / shard_rows));
    }
  }
  // Any that is undone: two ranks may have the same.
  Result<worker::Shard> Next() {
    std::lock_guard lock(mutex_);
    if (undone_.empty()) return Cancelled("every shard is done");
    auto any = undone_.begin();
    std::advance(any, dice_() % undone_.size());
    worker::Shard shard{.index = *any, .first = *any * shard_rows_, .last = 0};
    shard.last = std::min(rows_, shard.first + shard_rows_);
    return shard;
  }
  Status GoOn(const worker::Shard& shard) {
    std::lock_guard lock(mutex_);
    if (std::uniform_real_distribution<>()(dice_) < deaths_) {
      ++died_;
      return Internal("killed");
    }
    return undone_.contains(shard.index) ? Status::Ok() : Aborted("done by another");
  }
  void Done(const wire::TaskShardDone& done) {
    std::lock_guard lock(mutex_);
    undone_.erase(done.shard());
    const auto [known, first] = done_.emplace(done.shard(), done);
    differing_ += !first && known->second.object() != done.object();
  }

  mutable std::mutex mutex_;
  std::mt19937 dice_;
  const double deaths_;
  int64_t rows_ = 0, shard_rows_ = 0;
  std::set<uint32_t> undone_;
  std::map<uint32_t, wire::TaskShardDone> done_;
  int died_ = 0, differing_ = 0;
};

}  // namespace lepton::testing
