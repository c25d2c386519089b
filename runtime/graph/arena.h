// Memory that plans compute in by turns: as large as the largest of them needs, not as all of them
// together. What a run left in it is there until another plan that shares it runs. Ownership: plans
// and executors hold it together. Threads: one caller, so plans that share one run one at a time.
#pragma once

#include <cstddef>

#include "runtime/tensor/buffer.h"

namespace lepton::graph {

class Arena {
 public:
  // At least so many bytes of the host's memory, aligned as a Buffer. Where it grows, its place
  // changes and what it held is gone.
  char* Reserve(size_t bytes) {
    if (buffer_.size() < bytes) {
      buffer_ = Buffer();  // the two are not there at once
      buffer_ = Buffer(bytes);
    }
    return buffer_.as<char>();
  }
  size_t bytes() const { return buffer_.size(); }

 private:
  Buffer buffer_;
};

}  // namespace lepton::graph
