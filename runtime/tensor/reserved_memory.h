// Host memory that is reserved now and taken page by page as it is first written; zero before.
// Ownership: unique, movable. Threads: as for plain memory.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/base/status.h"

namespace lepton {

class ReservedMemory {
 public:
  ReservedMemory() = default;
  // kResourceExhausted when there are not so many addresses.
  static Result<ReservedMemory> Make(size_t bytes);

  void* data() const { return data_.get(); }
  size_t size() const { return data_.get_deleter().bytes; }

 private:
  struct Unmap {
    explicit Unmap(size_t bytes) : bytes(bytes) {}
    void operator()(void* data) const;
    size_t bytes;
  };
  std::unique_ptr<void, Unmap> data_{nullptr, Unmap(0)};
};

}  // namespace lepton
