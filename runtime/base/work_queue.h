// Background work on a few threads of its own, which sleep while there is none: for what must not
// hold up its caller (disk, long answers). Loops of kernels have ThreadPool.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace lepton {

class WorkQueue {
 public:
  // `name` is what the threads are called in ps and in debuggers: at most 15 characters.
  WorkQueue(const std::string& name, int threads);
  ~WorkQueue();  // runs what is queued
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // Runs `work` as soon as a thread is free, in the order of submission. Never blocks; any thread,
  // also one of the queue's own. What it throws is logged; whoever waits for it learns that from
  // what its end lets go of (a promise, a responder).
  void Submit(std::function<void()> work);

 private:
  void Run();

  std::mutex mutex_;  // of all below
  std::condition_variable news_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace lepton
