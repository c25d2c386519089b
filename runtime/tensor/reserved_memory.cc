#include "runtime/tensor/reserved_memory.h"

#include <sys/mman.h>

#include <string>

namespace lepton {

Result<ReservedMemory> ReservedMemory::Make(size_t bytes) {
  ReservedMemory memory;
  if (bytes == 0) return memory;
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return ResourceExhausted("cannot reserve " + std::to_string(bytes >> 20) + " MiB of addresses");
  }
  // A huge page would take what many tokens need for the first of them. Where that is no choice, it
  // is as it is.
  (void)::madvise(data, bytes, MADV_NOHUGEPAGE);
  memory.data_ = std::unique_ptr<void, Unmap>(data, Unmap{bytes});
  return memory;
}

void ReservedMemory::Unmap::operator()(void* data) const {
  ::munmap(data, bytes);
}

}  // namespace lepton
