#include "worker/infer/batcher.h"

#include <algorithm>
#include <string>

#include "runtime/base/metrics.h"

namespace lepton::worker {
namespace {

double Seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

struct Series {
  prometheus::Counter& rows =
      metrics::Counter("lepton_inference_rows_total", "Rows computed by this replica");
  prometheus::Counter& executions = metrics::Counter(
      "lepton_inference_executions_total", "Batches computed; rows / this is the mean batch");
  prometheus::Histogram& queue = metrics::Histogram(
      "lepton_inference_queue_seconds", "From a request's arrival to its batch's start");
  prometheus::Histogram& compute =
      metrics::Histogram("lepton_inference_compute_seconds", "Of one batch's forward pass");
};
Series& Metrics() {
  static Series series;
  return series;
}

}  // namespace

Batcher::Batcher(const BatcherOptions& options, Forward forward)
    : options_(options), forward_(std::move(forward)), thread_([this] { Run(); }) {}

Batcher::~Batcher() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  thread_.join();
  for (Item& item : queue_) item.done(Unavailable("the replica is stopping"));
}

uint64_t Batcher::Submit(ModelRows request, Done done) {
  const int64_t rows = request.rows;
  if (rows > options_.max_queue) {
    done(InvalidArgument("rows: " + std::to_string(rows) + " in one request; at most " +
                         std::to_string(options_.max_queue) + " (max_queue)"));
    return 0;
  }
  std::unique_lock lock(mutex_);
  if (queued_rows_ + rows > options_.max_queue) {
    lock.unlock();
    done(ResourceExhausted("the queue is full: " + std::to_string(options_.max_queue) +
                           " rows wait already (max_queue); try again later"));
    return 0;
  }
  queue_.push_back({++tickets_, std::move(request), std::move(done), RealClock().Now()});
  queued_rows_ += rows;
  wake_.notify_all();
  return tickets_;
}

void Batcher::Cancel(uint64_t ticket) {
  Item dropped;  // destroyed after the lock is released
  std::lock_guard lock(mutex_);
  const auto found = std::find_if(queue_.begin(), queue_.end(),
                                  [ticket](const Item& item) { return item.ticket == ticket; });
  if (found == queue_.end()) return;
  queued_rows_ -= found->rows.rows;
  dropped = std::move(*found);
  queue_.erase(found);
  wake_.notify_all();
}

bool Batcher::Drain(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, deadline.Left(), [this] { return queue_.empty() && !computing_; });
}

void Batcher::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const auto full = [this] {
      return stopping_ || queue_.empty() || queued_rows_ >= options_.max_batch;
    };
    if (queue_.size() > 1) {
      wake_.wait_until(lock, queue_.front().arrived + options_.max_wait, full);
    }
    if (stopping_) return;
    DropExpired(lock);
    std::vector<Item> batch = TakeBatch();
    if (batch.empty()) continue;
    computing_ = true;
    lock.unlock();
    Compute(std::move(batch));
    lock.lock();
    computing_ = false;
    wake_.notify_all();
  }
}

void Batcher::DropExpired(std::unique_lock<std::mutex>& lock) {
  const MonotonicTime now = RealClock().Now();
  std::vector<Item> expired;
  while (!queue_.empty() && queue_.front().arrived + options_.timeout <= now) {
    queued_rows_ -= queue_.front().rows.rows;
    expired.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  if (expired.empty()) return;
  lock.unlock();
  for (Item& item : expired)
    item.done(DeadlineExceeded("the request waited too long in the queue"));
  expired.clear();
  lock.lock();
  wake_.notify_all();
}

std::vector<Batcher::Item> Batcher::TakeBatch() {
  std::vector<Item> batch;
  int64_t rows = 0;
  while (!queue_.empty() &&
         (batch.empty() || rows + queue_.front().rows.rows <= options_.max_batch)) {
    rows += queue_.front().rows.rows;
    queued_rows_ -= queue_.front().rows.rows;
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

void Batcher::Compute(std::vector<Item> batch) {
  const MonotonicTime start = RealClock().Now();
  ModelRows all = std::move(batch[0].rows);
  std::vector<int64_t> counts = {all.rows};
  for (size_t i = 1; i < batch.size(); ++i) {
    counts.push_back(batch[i].rows.rows);
    all.Append(batch[i].rows);
  }
  const int64_t rows = all.rows;
  for (const Item& item : batch) Metrics().queue.Observe(Seconds(start - item.arrived));
  std::vector<float> logits(static_cast<size_t>(rows * options_.outputs));
  Status status;
  for (int64_t begin = 0; begin < rows && status.ok(); begin += options_.max_batch) {
    const int64_t count = std::min(options_.max_batch, rows - begin);
    const auto out = std::span(logits).subspan(static_cast<size_t>(begin * options_.outputs),
                                               static_cast<size_t>(count * options_.outputs));
    status = count == rows ? forward_(all, out) : forward_(all.Slice(begin, count), out);
    Metrics().executions.Increment();
  }
  Metrics().rows.Increment(static_cast<double>(rows));
  Metrics().compute.Observe(Seconds(RealClock().Now() - start));
  auto at = logits.begin();
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto end = at + counts[i] * options_.outputs;
    if (status.ok()) {
      batch[i].done(std::vector<float>(at, end));
    } else {
      batch[i].done(status);
    }
    at = end;
  }
}

}  // namespace lepton::worker
