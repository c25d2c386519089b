// Memory of a device, aligned to a cache line and to the widest vector register, zeroed when made.
// Ownership: unique, movable. Threads: as for plain memory.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/base/status.h"
#include "runtime/tensor/device.h"

namespace lepton {

class Accelerator;

class Buffer {
 public:
  static constexpr size_t kAlignment = 64;              // bytes
  static constexpr size_t kHugeFrom = size_t{4} << 20;  // bytes

  Buffer() = default;
  // Host memory. From kHugeFrom bytes on in huge pages where the kernel has them: faulting in a
  // model's state page by page would take longer than its first step. Running out of it ends the
  // process, as for any allocation.
  explicit Buffer(size_t bytes);
  // An accelerator's, which must outlive it; null: the host's. kResourceExhausted.
  static Result<Buffer> On(Accelerator* accelerator, size_t bytes);
  // Host memory that the accelerator reads and writes by itself.
  static Result<Buffer> Pinned(Accelerator& accelerator, size_t bytes);

  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  template <typename T>
  T* as() {
    return static_cast<T*>(data());
  }
  size_t size() const { return size_; }  // bytes
  const Device& device() const { return device_; }

 private:
  // Large buffers are mappings of their own, small ones of the allocator.
  struct Free {
    Free() : Free(nullptr, size_t{0}) {}
    Free(void* mapping, size_t mapped) : mapping(mapping), mapped(mapped) {}
    Free(Accelerator* accelerator, bool pinned) : accelerator(accelerator), pinned(pinned) {}
    void operator()(void* data) const;

    void* mapping = nullptr;  // null: the allocator's
    size_t mapped = 0;        // bytes
    Accelerator* accelerator = nullptr;
    bool pinned = false;
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
  Device device_;
};

// Bytes rounded up to kAlignment.
inline size_t AlignedSize(size_t bytes) {
  return (bytes + Buffer::kAlignment - 1) / Buffer::kAlignment * Buffer::kAlignment;
}

}  // namespace lepton
