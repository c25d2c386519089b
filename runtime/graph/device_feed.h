// A value's way from the host to its place on an accelerator: through pinned memory, so that the
// host goes on at once. Ownership: owns both places; the accelerator must outlive it. Threads: one
// caller.
#pragma once

#include <cstring>
#include <memory>

#include "runtime/tensor/accelerator.h"
#include "runtime/tensor/buffer.h"

namespace lepton::graph {

class DeviceFeed {
 public:
  static Result<DeviceFeed> Make(Accelerator& accelerator, size_t bytes) {
    DeviceFeed feed;
    feed.accelerator_ = &accelerator;
    LEPTON_ASSIGN_OR_RETURN(feed.staging_, Buffer::Pinned(accelerator, bytes));
    LEPTON_ASSIGN_OR_RETURN(feed.place_, Buffer::On(&accelerator, bytes));
    feed.sent_ = accelerator.MakeFence();
    return feed;
  }

  void* place() { return place_.data(); }
  // Queued; `data` may change on return. Waits only while the copy before this one is under way.
  void Send(const void* data) {
    if (place_.size() == 0) return;
    sent_->Wait();
    std::memcpy(staging_.data(), data, staging_.size());
    accelerator_->CopyIn(place_.data(), staging_.data(), staging_.size());
    sent_->Record();
  }

 private:
  Accelerator* accelerator_ = nullptr;
  Buffer staging_, place_;
  std::unique_ptr<Fence> sent_;
};

}  // namespace lepton::graph
