// CRC-32C (Castagnoli, RFC 3720 appendix B.4), which processors compute in hardware.
#pragma once

#include <cstdint>
#include <string_view>

namespace lepton::storage {

// Of `bytes` appended to what `crc` is the checksum of; 0 is that of nothing.
uint32_t Crc32c(std::string_view bytes, uint32_t crc = 0);

namespace internal {
// The reference that runs where the processor has no such instruction.
uint32_t Crc32cPortable(std::string_view bytes, uint32_t crc);
}  // namespace internal

}  // namespace lepton::storage
