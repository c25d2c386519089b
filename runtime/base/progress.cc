#include "runtime/base/progress.h"

#include <atomic>
#include <mutex>
#include <utility>

namespace lepton::progress {
namespace {

std::atomic<uint64_t> tick_count{0}, move_count{0};

void Count(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// Of the span that lives.
std::mutex span_mutex;
bool span_lives = false;
std::string_view span_what;
uint64_t span_number = 0;

}  // namespace

void Tick() {
  Count(tick_count);
}

void Moved() {
  Count(move_count);
}

Computing::Computing(std::string_view what, uint64_t number) {
  Tick();
  const std::lock_guard lock(span_mutex);
  span_lives = true;
  span_what = what;
  span_number = number;
}

Computing::~Computing() {
  const std::lock_guard lock(span_mutex);
  span_lives = false;
}

Waiting::Waiting() {
  const std::lock_guard lock(span_mutex);
  within_ = std::exchange(span_lives, false);
}

Waiting::~Waiting() {
  if (within_) Tick();
  const std::lock_guard lock(span_mutex);
  span_lives = within_;
}

Look Now() {
  Look look;
  look.ticks = tick_count.load(std::memory_order_relaxed);
  look.moves = move_count.load(std::memory_order_relaxed);
  const std::lock_guard lock(span_mutex);
  look.computing = span_lives;
  if (span_lives) look.doing = std::string(span_what) + " " + std::to_string(span_number);
  return look;
}

}  // namespace lepton::progress
