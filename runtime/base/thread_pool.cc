#include "runtime/base/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>

#include "runtime/base/named_thread.h"
#include "runtime/base/progress.h"

namespace lepton {
namespace {
std::atomic<int> compute_threads{0};
thread_local bool inside_loop = false;

// Loops follow each other within microseconds while a model runs; waking a sleeper costs tens.
constexpr std::chrono::microseconds kSpin{40};
// Ranges per thread: what one thread is late with, another takes over.
constexpr int64_t kRangesPerThread = 4;

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// Whether `done` became true within kSpin.
template <typename Done>
bool Spin(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      _mm_pause();
    }
    if (std::chrono::steady_clock::now() >= end) return false;
  }
}
}  // namespace

// The ranges of one loop, claimed by whichever thread is free. Lies on the caller's stack.
struct ThreadPool::Loop {
  const std::function<void(int64_t, int64_t)>* body;
  int64_t count;
  int64_t chunk;
  int64_t chunks;
  std::atomic<int64_t> next{0};

  // One thread ticks, so that ticks are cheap.
  void Work(bool ticks) {
    inside_loop = true;
    for (;;) {
      const int64_t index = next.fetch_add(1);
      if (index >= chunks) break;
      (*body)(index * chunk, std::min(count, (index + 1) * chunk));
      if (ticks) progress::Tick();
    }
    inside_loop = false;
  }
};

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)) {
  for (int i = 1; i < threads_; ++i) workers_.push_back(NamedThread("compute", [this] { Run(); }));
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  Announce();
  for (std::thread& worker : workers_) worker.join();
}

// All that is announced was made visible before; a worker that looked too early looks again, since
// the number that it waits on has changed.
void ThreadPool::Announce() {
  announced_.fetch_add(1);
  if (sleepers_.load() > 0) announced_.notify_all();
}

void ThreadPool::HelpLoop() {
  helpers_.fetch_add(1);
  if (Loop* const loop = loop_.load(); loop != nullptr) loop->Work(false);
  // The caller may sleep until the last helper has left its loop.
  if (helpers_.fetch_sub(1) == 1) helpers_.notify_all();
}

void ThreadPool::Run() {
  for (;;) {
    const int seen = announced_.load();
    if (loop_.load() != nullptr) HelpLoop();
    if (stopping_.load()) return;
    if (Spin([&] { return announced_.load(std::memory_order_relaxed) != seen; })) continue;
    sleepers_.fetch_add(1);
    announced_.wait(seen);
    sleepers_.fetch_sub(1);
  }
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain,
                             const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t most = (count + grain - 1) / grain;
  if (threads_ == 1 || most <= 1 || inside_loop) return body(0, count);
  // One loop at a time has the workers; a caller that comes meanwhile is as many threads as one.
  const std::unique_lock turn(loop_mutex_, std::try_to_lock);
  if (!turn.owns_lock()) return body(0, count);
  Loop loop{.body = &body, .count = count, .chunk = 0, .chunks = 0};
  const int64_t parts = std::min<int64_t>(kRangesPerThread * threads_, most);
  loop.chunk = (count + parts - 1) / parts;
  loop.chunks = (count + loop.chunk - 1) / loop.chunk;
  loop_.store(&loop);
  Announce();
  loop.Work(true);
  // From here on no worker enters it, and those within finish the ranges that they have.
  loop_.store(nullptr);
  if (Spin([&] { return helpers_.load() == 0; })) return;
  for (int helpers = helpers_.load(); helpers > 0; helpers = helpers_.load()) {
    helpers_.wait(helpers);
  }
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
