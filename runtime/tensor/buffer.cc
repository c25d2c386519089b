#include "runtime/tensor/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lepton {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;  // bytes

}  // namespace

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes >= kHugeFrom) {
    const size_t mapped = (bytes + kHugePage - 1) / kHugePage * kHugePage + kHugePage;
    void* const mapping =
        ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    const uintptr_t begin =
        (reinterpret_cast<uintptr_t>(mapping) + kHugePage - 1) / kHugePage * kHugePage;
    void* const memory = reinterpret_cast<void*>(begin);
    // Fails where huge pages are switched off: then pages are small.
    ::madvise(memory, mapped - kHugePage, MADV_HUGEPAGE);
    data_ = std::unique_ptr<void, Free>(memory, Free(mapping, mapped));
    return;
  }
  void* memory = std::aligned_alloc(kAlignment, AlignedSize(bytes));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, AlignedSize(bytes));
  data_.reset(memory);
}

void Buffer::Free::operator()(void* data) const {
  if (mapping != nullptr) {
    ::munmap(mapping, mapped);
  } else {
    std::free(data);
  }
}

}  // namespace lepton
