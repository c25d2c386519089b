#include "runtime/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>

namespace lepton {
namespace {
std::atomic<int> compute_threads{0};
thread_local bool inside_loop = false;

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// The ranges of one loop, claimed by whichever thread is free.
struct Loop {
  const std::function<void(int64_t, int64_t)>* body;
  int64_t count;
  int64_t chunk;
  int64_t chunks;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;

  void Work() {
    inside_loop = true;
    for (;;) {
      const int64_t index = next.fetch_add(1);
      if (index >= chunks) break;
      (*body)(index * chunk, std::min(count, (index + 1) * chunk));
      if (done.fetch_add(1) + 1 == chunks) {
        const std::lock_guard lock(mutex);
        finished.notify_all();
      }
    }
    inside_loop = false;
  }
};
}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)) {
  const int started = std::max(1, threads_ - 1);
  for (int i = 0; i < started; ++i) workers_.emplace_back([this] { Run(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run() {
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

void ThreadPool::Submit(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain,
                             const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t parts = std::min<int64_t>(threads_, (count + grain - 1) / grain);
  if (parts <= 1 || inside_loop) {
    body(0, count);
    return;
  }
  auto loop = std::make_shared<Loop>();
  loop->body = &body;
  loop->count = count;
  loop->chunk = (count + parts - 1) / parts;
  loop->chunks = (count + loop->chunk - 1) / loop->chunk;
  for (int64_t i = 1; i < loop->chunks; ++i) Submit([loop] { loop->Work(); });
  loop->Work();
  std::unique_lock lock(loop->mutex);
  loop->finished.wait(lock, [&] { return loop->done.load() == loop->chunks; });
}

void ThreadPool::SetComputeThreads(int threads) {
  compute_threads.store(threads);
}

ThreadPool& ThreadPool::Compute() {
  static ThreadPool* pool =
      new ThreadPool(compute_threads.load() > 0 ? compute_threads.load() : AvailableCores());
  return *pool;
}

}  // namespace lepton
