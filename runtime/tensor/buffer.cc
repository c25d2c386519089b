#include "runtime/tensor/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "runtime/tensor/accelerator.h"

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

Result<Buffer> Buffer::On(Accelerator* accelerator, size_t bytes) {
  if (accelerator == nullptr) return Buffer(bytes);
  Buffer buffer;
  buffer.size_ = bytes;
  buffer.device_ = accelerator->device();
  if (bytes == 0) return buffer;
  LEPTON_ASSIGN_OR_RETURN(void* const data, accelerator->Allocate(bytes));
  buffer.data_ = {data, Free(accelerator, false)};
  return buffer;
}

Result<Buffer> Buffer::Pinned(Accelerator& accelerator, size_t bytes) {
  Buffer buffer;
  buffer.size_ = bytes;
  if (bytes == 0) return buffer;
  LEPTON_ASSIGN_OR_RETURN(void* const data, accelerator.AllocatePinned(bytes));
  buffer.data_ = {data, Free(&accelerator, true)};
  return buffer;
}

void Buffer::Free::operator()(void* data) const {
  if (mapping != nullptr) {
    ::munmap(mapping, mapped);
  } else if (accelerator == nullptr) {
    std::free(data);
  } else if (pinned) {
    accelerator->FreePinned(data);
  } else {
    accelerator->Free(data);
  }
}

}  // namespace lepton
