// Threads for data-parallel loops. One pool per process is the rule (ThreadPool::Compute()), so
// that several ranks on a host can be given disjoint shares of cores. Background work has
// WorkQueue.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lepton {

class ThreadPool {
 public:
  // `threads` counts the caller of ParallelFor: with 1 everything runs on the caller.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Runs body(begin, end) over [0, count) cut into ranges of at least `grain`, and returns when all
  // are done. The cuts depend on count, grain and the number of threads only; which thread runs a
  // range does not. Not reentrant: a body that calls ParallelFor runs that inner loop alone on its
  // own thread, and so does a second caller at the same time. Idle threads spin for some
  // microseconds before they sleep, no longer: other processes may need the core.
  void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

  // The pool that kernels use; sized by SetComputeThreads, by default the cores this process may
  // run on.
  static ThreadPool& Compute();
  // Call before the first Compute().
  static void SetComputeThreads(int threads);

 private:
  struct Loop;
  void Run();
  void Announce();
  void HelpLoop();

  const int threads_;
  std::atomic<int> announced_{0};  // counts news: a loop, the end
  std::atomic<int> sleepers_{0};
  std::mutex loop_mutex_;  // whose holder has loop_
  std::atomic<Loop*> loop_{nullptr};
  std::atomic<int> helpers_{0};  // workers that may be within loop_
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace lepton
