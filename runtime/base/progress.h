// Whether the work that this process is for moves: what a task's training thread computes, as seen
// from the thread that speaks for the process. A stuck thread is told from a slow one by a count
// that stands still while it should grow.
// Threads: any. A tick costs about a nanosecond; ticks of several threads at once may be lost.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lepton::progress {

// Something was done: a kernel ran, a piece of data was read.
void Tick();
// Bytes went to a disk or a peer, or came from one. Counted apart: a training thread that stands
// still beside a thread that writes is stuck, but a group in which all wait for a slow disk is not.
void Moved();

// While one lives, ticks are due. Between them the work waits, for peers, disks or orders, which
// have deadlines of their own. One at a time.
class Computing {
 public:
  Computing(std::string_view what, uint64_t number);  // "step", 17
  ~Computing();
  Computing(const Computing&) = delete;
  Computing& operator=(const Computing&) = delete;
};

// Within a Computing, on its thread: here it waits, and no ticks are due. For a wait in the middle
// of work, without which peers that wait for each other would seem to compute for ever.
class Waiting {
 public:
  Waiting();
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  bool within_;
};

struct Look {
  uint64_t ticks = 0;
  uint64_t moves = 0;
  bool computing = false;
  std::string doing;  // "step 17", empty between
};
Look Now();

}  // namespace lepton::progress
