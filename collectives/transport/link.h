// A pair of one-way byte streams to one peer. Never blocks: Mesh drives links and waits for them.
// Threads: one caller at a time. Memory: bytes are copied before a call returns.
#pragma once

#include <cstddef>
#include <string_view>

#include "collectives/transport/link_rates.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

class Link {
 public:
  virtual ~Link() = default;
  virtual std::string_view transport() const = 0;  // "shm", "tcp"
  // Moves up to `size` bytes and returns how many; 0 when none can move now. kUnavailable when the
  // peer is gone: for receives, after all that it sent has been received.
  virtual Result<size_t> TrySend(const void* data, size_t size) = 0;
  virtual Result<size_t> TryRecv(void* data, size_t size) = 0;
  // To be polled when nothing moves; -1 when the peer rings this rank's bell instead.
  virtual int fd() const = 0;
  // Any thread.
  virtual LinkLook Look() const { return {}; }
};

}  // namespace lepton::collectives
