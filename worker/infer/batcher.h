// Dynamic batching: puts rows of several requests into one forward pass.
//
//   Submit -> queue (at most max_queue rows) -> batch (at most max_batch rows) -> Forward -> Done
//
// A request that is alone in the queue when the batcher is idle or becomes idle runs at once.
// Otherwise a batch starts when it is full or when its oldest request has waited max_wait; requests
// that come while a batch computes wait for its end at least. A request of more than max_batch rows
// is a batch of its own, computed max_batch rows at a time. Threads: Submit, Cancel, Drain from
// any; Forward on the batcher's one thread; Done there too, or on the submitter's for an immediate
// refusal.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "worker/infer/model_rows.h"

namespace lepton::worker {

struct BatcherOptions {
  int64_t outputs = 0;
  int64_t max_batch = 32;
  int64_t max_queue = 1024;  // rows
  Duration max_wait = std::chrono::milliseconds(2);
  Duration timeout = std::chrono::seconds(10);  // in the queue
};

class Batcher {
 public:
  // logits: [rows, outputs].
  using Forward = std::function<Status(const ModelRows& rows, std::span<float> logits)>;
  using Done = std::function<void(Result<std::vector<float>>)>;

  Batcher(const BatcherOptions& options, Forward forward);
  ~Batcher();  // what is queued gets kUnavailable
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // `done` runs once: logits [rows, outputs], kResourceExhausted (queue full), kInvalidArgument
  // (more rows than the queue ever holds), kDeadlineExceeded, or Forward's error. Returns a ticket.
  uint64_t Submit(ModelRows rows, Done done);
  // Drops a queued request (its done is destroyed uncalled); nothing if it runs or is over.
  void Cancel(uint64_t ticket);
  // Waits until nothing is queued or computing; false when the deadline passes first.
  bool Drain(Deadline deadline);

 private:
  struct Item {
    uint64_t ticket = 0;
    ModelRows rows;
    Done done;
    MonotonicTime arrived;
  };
  void Run();
  std::vector<Item> TakeBatch();
  void DropExpired(std::unique_lock<std::mutex>& lock);
  void Compute(std::vector<Item> batch);

  const BatcherOptions options_;
  const Forward forward_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> queue_;
  int64_t queued_rows_ = 0;
  bool computing_ = false, stopping_ = false;
  uint64_t tickets_ = 0;
  std::thread thread_;
};

}  // namespace lepton::worker
