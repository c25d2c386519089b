// A device with memory and a queue of its own: what runs there is queued in order, and the host
// goes on. kernels/cuda implements it, for a GPU and for its emulation on the host.
//
// Errors: work that fails on the device makes everything after it fail too; the next Synchronize
// says so (kInternal, or kDeviceFailed where it is the device's fault), and nothing computed since
// the last one that succeeded may be used. Ownership: must outlive its memory. Threads: one caller
// at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/base/status.h"
#include "runtime/tensor/device.h"

namespace lepton {

// A point in the queue.
class Fence {
 public:
  virtual ~Fence() = default;
  virtual void Record() = 0;  // the work queued so far
  virtual void Wait() = 0;    // until that is done; at once when nothing was recorded
};

// Work that was recorded once and is queued again as a whole, with the same addresses and numbers.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void Replay() = 0;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  virtual Device device() const = 0;
  virtual std::string description() const = 0;  // "NVIDIA H100 80GB HBM3, 79 GiB"

  // Zeroed, 256-byte aligned. kResourceExhausted says how much was asked for.
  virtual Result<void*> Allocate(size_t bytes) = 0;
  // Once the work queued so far is done.
  virtual void Free(void* data) = 0;
  // Host memory that the device reads and writes by itself; the other copies are not asynchronous.
  virtual Result<void*> AllocatePinned(size_t bytes) = 0;
  virtual void FreePinned(void* data) = 0;

  // Queued; the host's memory must stay as it is until the copy is done.
  virtual void CopyIn(void* to, const void* from_host, size_t bytes) = 0;
  virtual void CopyOut(void* to_host, const void* from, size_t bytes) = 0;
  virtual void CopyWithin(void* to, const void* from, size_t bytes) = 0;
  virtual void Zero(void* data, size_t bytes) = 0;

  // Until all that was queued is done.
  virtual Status Synchronize() = 0;
  virtual std::unique_ptr<Fence> MakeFence() = 0;

  // What is queued in between is recorded instead of run: no allocation, no Synchronize, no fence.
  virtual Status BeginRecording() = 0;
  // kFailedPrecondition when something queued cannot be recorded.
  virtual Result<std::unique_ptr<RecordedWork>> EndRecording() = 0;
};

}  // namespace lepton
