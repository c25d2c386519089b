// Threads that say what they do in ps -L, top -H, perf and debuggers.
#pragma once

#include <pthread.h>

#include <thread>
#include <utility>

namespace lepton {

// A thread of that name: at most 15 characters, the kernel takes no more.
template <size_t N, typename Body>
std::thread NamedThread(const char (&name)[N], Body body) {
  static_assert(N <= 16, "a thread's name has at most 15 characters");
  std::thread thread(std::move(body));
  ::pthread_setname_np(thread.native_handle(), name);
  return thread;
}

}  // namespace lepton
