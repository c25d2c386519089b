#include "worker/data/batch_feeder.h"

#include <fmt/format.h>

#include "runtime/base/named_thread.h"
#include "runtime/base/progress.h"

namespace lepton::worker {

BatchFeeder::BatchFeeder(const BatchSource& source, const nn::Signature& signature, Plan plan)
    : source_(source), plan_(std::move(plan)), taken_{plan_.first_step, 0} {
  // Nobody asks when there is nothing to ask for.
  if (plan_.micro_batches.empty()) taken_.step = plan_.last_step;
  const BatchSource::Options& options = source.options();
  const int64_t rows = source.BatchRows(0) / (int64_t{options.shards} * options.pieces) + 1;
  const bool threaded = rows * source.examples().example_bytes() >= kThreadBytes && !AtEnd(taken_);
  // One more than are ready: the caller holds one.
  for (int i = 0; i < (threaded ? kAhead + 1 : 1); ++i) {
    slots_.push_back(std::make_unique<Slot>(signature));
  }
  if (threaded) thread_ = NamedThread("feeder", [this] { Run(); });
}

BatchFeeder::~BatchFeeder() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BatchFeeder::Advance(Place* place) const {
  if (++place->index < plan_.micro_batches.size()) return;
  place->index = 0;
  ++place->step;
}

void BatchFeeder::FillSlot(const Place& place, Slot* slot) {
  const auto [shard, piece] = plan_.micro_batches[place.index];
  const Status filled = source_.Fill(place.step, shard, piece, slot->buffer);
  progress::Tick();
  slot->status = filled.WithContext(fmt::format("batch of step {}", place.step + 1));
}

void BatchFeeder::Run() {
  Place place = taken_;
  std::unique_lock lock(mutex_);
  while (!stopping_ && !AtEnd(place)) {
    if (filled_ - released_ == slots_.size()) {
      changed_.wait(lock);
      continue;
    }
    Slot* const slot = slots_[filled_ % slots_.size()].get();
    lock.unlock();
    FillSlot(place, slot);
    Advance(&place);
    lock.lock();
    ++filled_;
    changed_.notify_all();
  }
}

Result<const BatchBuffer*> BatchFeeder::Next() {
  if (AtEnd(taken_)) return Internal("the plan of batches is at its end");
  if (!has_thread()) {
    FillSlot(taken_, slots_[0].get());
    Advance(&taken_);
    if (!slots_[0]->status.ok()) return slots_[0]->status;
    return &slots_[0]->buffer;
  }
  std::unique_lock lock(mutex_);
  if (holding_) {
    ++released_;
    // Half empty: the thread fills several slots for one wake-up.
    if (filled_ - released_ <= slots_.size() / 2) changed_.notify_all();
  }
  changed_.wait(lock, [this] { return filled_ > given_; });
  Slot* const slot = slots_[given_++ % slots_.size()].get();
  holding_ = true;
  Advance(&taken_);
  if (!slot->status.ok()) return slot->status;
  return &slot->buffer;
}

}  // namespace lepton::worker
