// A checksum of bytes that come in pieces: 64 bits, equal on every machine and for every cut into
// pieces. What one changed bit does to it cannot be undone by the bits that follow, and two changes
// are missed with a chance of about 2^-64. Against faulty hardware, not against an attacker.
// Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton::collectives {

class FrameSum {
 public:
  void Update(const void* data, size_t size);
  uint64_t Value() const;

 private:
  static constexpr size_t kLanes = 4;
  static constexpr size_t kBlock = kLanes * sizeof(uint64_t);
  void Blocks(const unsigned char* data, size_t blocks);

  uint64_t lanes_[kLanes] = {0x9E3779B97F4A7C15u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
                             0x27D4EB2F165667C5u};
  unsigned char held_[kBlock] = {};  // of a block that is not whole
  size_t held_bytes_ = 0;
  uint64_t total_ = 0;
};

}  // namespace lepton::collectives
