// A checksum of bytes that come in pieces: 64 bits, equal on every machine and for every cut into
// pieces. What one changed bit does to it cannot be undone by the bits that follow, and two changes
// are missed with a chance of about 2^-64. Against faulty hardware, not against an attacker.
//
// Whole blocks go word by word to 64 lanes, which vector units take eight at a time; what is left,
// and the lanes at the end, to four, so that a short frame costs little. Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton::collectives {

class FrameSum {
 public:
  void Update(const void* data, size_t size);
  uint64_t Value() const;

 private:
  static constexpr size_t kLanes = 64;
  static constexpr size_t kBlock = kLanes * sizeof(uint64_t);
  void Blocks(const unsigned char* data, size_t blocks);

  uint64_t lanes_[kLanes];      // once a block has come
  unsigned char held_[kBlock];  // of a block that is not whole
  size_t held_bytes_ = 0;
  uint64_t total_ = 0;
  bool lanes_begun_ = false;
};

}  // namespace lepton::collectives
