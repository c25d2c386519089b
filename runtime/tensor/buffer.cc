#include "runtime/tensor/buffer.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace lepton {

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* memory = std::aligned_alloc(kAlignment, AlignedSize(bytes));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, AlignedSize(bytes));
  data_.reset(memory);
}

void Buffer::Free::operator()(void* data) const {
  std::free(data);
}

}  // namespace lepton
