#include "worker/data/token_stream.h"

#include <algorithm>

namespace lepton::worker {

void TokenStream::Read(int64_t first, int64_t count, int32_t* out) const {
  const uint64_t at = begin_ + static_cast<uint64_t>(first) * width_;
  const auto copy = [&]<typename Id>(Id) {
    const std::span<const Id> ids = file_->As<Id>(at, static_cast<size_t>(count));
    std::transform(ids.begin(), ids.end(), out, [](Id id) { return static_cast<int32_t>(id); });
  };
  if (width_ == 1) return copy(uint8_t{});
  if (width_ == 2) return copy(uint16_t{});
  copy(uint32_t{});
}

}  // namespace lepton::worker
