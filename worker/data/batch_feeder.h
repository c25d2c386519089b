// A rank's micro-batches in the order in which its steps need them, assembled ahead by a thread of
// their own while the step before is computed. What is in them does not depend on timing. At most
// kAhead are ready at once; the thread sleeps when they are, and ends with the feeder. Where
// filling a micro-batch costs less than handing it over, there is no thread and Next fills it.
// Threads: one caller. Borrows the source, which outlives it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/data/batch_source.h"

namespace lepton::worker {

class BatchFeeder {
 public:
  static constexpr int kAhead = 4;
  // Micro-batches of fewer bytes are filled on the caller's thread: a hand-over costs about 10 us,
  // in which so much is copied.
  static constexpr int64_t kThreadBytes = 64 << 10;

  struct Plan {
    uint64_t first_step = 0, last_step = 0;  // [first, last)
    std::vector<MicroBatch> micro_batches;   // of this rank, the same in each step
  };
  BatchFeeder(const BatchSource& source, const nn::Signature& signature, Plan plan);
  ~BatchFeeder();
  BatchFeeder(const BatchFeeder&) = delete;
  BatchFeeder& operator=(const BatchFeeder&) = delete;

  // The next micro-batch: step by step, in the plan's order. Valid until the next call. The error
  // of a batch that could not be filled comes when it is its turn. kInternal behind the plan's end.
  Result<const BatchBuffer*> Next();

  bool has_thread() const { return thread_.joinable(); }

 private:
  struct Slot {
    explicit Slot(const nn::Signature& signature) : buffer(signature) {}
    BatchBuffer buffer;
    Status status;
  };
  struct Place {  // of a micro-batch in the plan
    uint64_t step;
    size_t index;  // into plan_.micro_batches
  };
  void Advance(Place* place) const;
  bool AtEnd(const Place& place) const { return place.step >= plan_.last_step; }
  void FillSlot(const Place& place, Slot* slot);
  void Run();

  const BatchSource& source_;
  const Plan plan_;
  std::vector<std::unique_ptr<Slot>> slots_;
  Place taken_;           // the next that Next gives
  bool holding_ = false;  // the caller has the slot before
  uint64_t given_ = 0;    // micro-batches that Next gave

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t filled_ = 0, released_ = 0;  // counts over all slots
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lepton::worker
