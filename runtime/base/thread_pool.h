// Threads for data-parallel loops and background work. One pool per process is the rule
// (ThreadPool::Compute()), so that several ranks on a host can be given disjoint shares of cores.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lepton {

class ThreadPool {
 public:
  // `threads` counts the caller of ParallelFor: with 1 everything runs on the caller.
  explicit ThreadPool(int threads);
  ~ThreadPool();  // finishes submitted work
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Runs body(begin, end) over [0, count) cut into ranges of at least `grain`, and returns when all
  // are done. The cuts depend on count, grain and the number of threads only. Not reentrant: a body
  // that calls ParallelFor runs that inner loop alone on its own thread.
  void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

  // Runs `work` some time later on a pool thread (on a thread of its own kind: at least one exists
  // even when threads() is 1).
  void Submit(std::function<void()> work);

  // The pool that kernels use; sized by SetComputeThreads, by default the cores this process may
  // run on.
  static ThreadPool& Compute();
  // Call before the first Compute().
  static void SetComputeThreads(int threads);

 private:
  void Run();
  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace lepton
