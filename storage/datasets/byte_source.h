// Bytes to import, in pieces: an upload that is in memory, or an open file, which is read and never
// mapped, since its owner may change it meanwhile.
// Ownership: borrows the memory, owns the descriptor. Threads: one caller.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::storage {

class ByteSource {
 public:
  static ByteSource FromMemory(std::string_view bytes);
  // A regular file, from its start.
  static Result<ByteSource> FromFile(UniqueFd fd);

  uint64_t size() const { return size_; }
  // The next piece, of at most 1 MiB; empty at the end. Valid until the next call.
  Result<std::string_view> Next();
  // Everything; kResourceExhausted above `limit`.
  Result<std::string> ReadAll(uint64_t limit);
  // The first bytes, at most `max`; reading goes on from the start.
  Result<std::string> Peek(size_t max);

  // Of a file, for readers that seek; -1 for memory.
  int fd() const { return fd_.get(); }
  std::string_view memory() const { return memory_; }

 private:
  ByteSource() = default;
  Status Rewind();

  std::string_view memory_;
  UniqueFd fd_;
  uint64_t size_ = 0, done_ = 0;
  std::string buffer_;
};

}  // namespace lepton::storage
