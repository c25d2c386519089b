// One long list of token ids that lies in a mapped file: bytes of a text, or u16 or u32 ids. Never
// copied as a whole.
// Threads: immutable; any. Ownership: shares the mapping.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/base/mapped_file.h"

namespace lepton::worker {

class TokenStream {
 public:
  // `width`: bytes of an id, 1, 2 or 4. `begin`: of the first id in the file; aligned to `width`.
  TokenStream(std::shared_ptr<const MappedFile> file, int width, uint64_t begin, int64_t count)
      : file_(std::move(file)), width_(width), begin_(begin), count_(count) {}

  int64_t size() const { return count_; }
  // ids [first, first + count) into `out`.
  void Read(int64_t first, int64_t count, int32_t* out) const;

 private:
  const std::shared_ptr<const MappedFile> file_;
  const int width_;
  const uint64_t begin_;
  const int64_t count_;
};

}  // namespace lepton::worker
