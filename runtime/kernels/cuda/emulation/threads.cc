#include "runtime/kernels/cuda/emulation/threads.h"

#include <memory>
#include <vector>

#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/emulation/fiber.h"

namespace lepton::kernels::cuda::emulation {

Index current_thread, current_block, block_extent, grid_extent;

namespace {

constexpr unsigned kLanes = 32;
constexpr size_t kShareBytes = 64;

enum class Waits : uint8_t { kNot, kForWarp, kForBlock, kDone };

struct Thread {
  Waits waits = Waits::kNot;
  unsigned exchanges = 0;
  // Two places, used in turn: who reads one cannot be overtaken by who writes it again.
  alignas(16) unsigned char shared[2][kShareBytes];
};

bool reversed = false;
int64_t most_blocks = kMostBlocks;
std::vector<Thread> threads;
std::vector<unsigned char> shared_memory;

void WaitFor(Waits what) {
  threads[current_thread.x].waits = what;
  Fibers::Yield();
}

// True when somebody may go on.
bool Release(unsigned count) {
  bool any = false, all_at_barrier = true;
  for (unsigned first = 0; first < count; first += kLanes) {
    const unsigned last = std::min(count, first + kLanes);
    unsigned waiting = 0;
    for (unsigned t = first; t < last; ++t) waiting += threads[t].waits == Waits::kForWarp;
    for (unsigned t = first; t < last; ++t) {
      const Waits waits = threads[t].waits;
      all_at_barrier &= waits == Waits::kForBlock || waits == Waits::kDone;
    }
    if (waiting == 0) continue;
    // A lane that waits for the block, or has returned, will not come.
    CHECK_EQ(waiting, last - first)
        << "a warp's shuffle or barrier is not reached by all its lanes";
    for (unsigned t = first; t < last; ++t) threads[t].waits = Waits::kNot;
    any = true;
  }
  if (any || !all_at_barrier) return any;
  unsigned waiting = 0;
  for (unsigned t = 0; t < count; ++t) waiting += threads[t].waits == Waits::kForBlock;
  if (waiting == 0) return false;
  CHECK_EQ(waiting, count) << "a block's barrier is not reached by all its threads";
  for (unsigned t = 0; t < count; ++t) threads[t].waits = Waits::kNot;
  return true;
}

void RunBlock(unsigned count, const std::function<void()>& thread) {
  for (unsigned t = 0; t < count; ++t) threads[t] = {};
  Fibers& fibers = Fibers::Get();
  for (unsigned t = 0; t < count; ++t) fibers.Start(t, &thread);
  do {
    for (unsigned i = 0; i < count; ++i) {
      const unsigned t = reversed ? count - 1 - i : i;
      if (threads[t].waits != Waits::kNot) continue;
      current_thread.x = t;
      if (fibers.Resume(t)) threads[t].waits = Waits::kDone;
    }
  } while (Release(count));
}

void RunGrid(const Shape& shape, const std::function<void()>& thread) {
  const auto count = static_cast<unsigned>(shape.threads);
  if (threads.size() < count) threads.resize(count);
  block_extent = {count, 1, 1};
  grid_extent = {static_cast<unsigned>(shape.x), static_cast<unsigned>(shape.y),
                 static_cast<unsigned>(shape.z)};
  for (unsigned z = 0; z < grid_extent.z; ++z) {
    for (unsigned y = 0; y < grid_extent.y; ++y) {
      for (unsigned x = 0; x < grid_extent.x; ++x) {
        current_block = {x, y, z};
        if (shape.barriers) {
          // What a block finds in shared memory is undefined: not a number, so that it shows.
          shared_memory.assign(shape.shared_bytes, 0xff);
          RunBlock(count, thread);
          continue;
        }
        for (unsigned t = 0; t < count; ++t) {
          current_thread.x = t;
          thread();
        }
      }
    }
  }
}

}  // namespace

void Enqueue(Stream stream, const Shape& shape, std::function<void()> thread) {
  CHECK(shape.threads > 0 && shape.threads <= 1024) << shape.threads << " threads in a block";
  CHECK_LE(shape.y, most_blocks) << "blocks along y";
  CHECK_LE(shape.z, most_blocks) << "blocks along z";
  CHECK_LE(shape.shared_bytes, size_t{99} << 10) << "of shared memory";
  Enqueue(stream, [shape, thread = std::move(thread)] { RunGrid(shape, thread); });
}

void ReverseThreads(bool reverse) {
  reversed = reverse;
}

void LimitBlocks(int64_t most) {
  most_blocks = most;
}

void* SharedMemory() {
  return shared_memory.data();
}

unsigned Lane() {
  return current_thread.x % kLanes;
}

void BlockBarrier() {
  WaitFor(Waits::kForBlock);
}

void WarpBarrier() {
  WaitFor(Waits::kForWarp);
}

const void* Share(const void* words, size_t bytes) {
  CHECK_LE(bytes, kShareBytes);
  Thread& self = threads[current_thread.x];
  void* place = self.shared[++self.exchanges % 2];
  std::memcpy(place, words, bytes);
  WaitFor(Waits::kForWarp);
  return place;
}

const void* SharedBy(unsigned lane) {
  const Thread& other = threads[current_thread.x / kLanes * kLanes + lane];
  return other.shared[threads[current_thread.x].exchanges % 2];
}

uint64_t Exchange(uint64_t word, unsigned from) {
  Share(&word, sizeof(word));
  std::memcpy(&word, SharedBy(from), sizeof(word));
  return word;
}

}  // namespace lepton::kernels::cuda::emulation
