#include "collectives/transport/frame_sum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lepton::collectives {
namespace {

constexpr uint64_t kMultiplier =
    0x9FB21C651E98DF25u;  // odd: each step can be undone, so none loses

uint64_t Step(uint64_t lane, uint64_t word) {
  return std::rotl((lane ^ word) * kMultiplier, 29);
}

}  // namespace

void FrameSum::Blocks(const unsigned char* data, size_t blocks) {
  uint64_t a = lanes_[0], b = lanes_[1], c = lanes_[2], d = lanes_[3];
  for (; blocks > 0; --blocks, data += kBlock) {
    uint64_t words[kLanes];
    std::memcpy(words, data, kBlock);
    a = Step(a, words[0]);
    b = Step(b, words[1]);
    c = Step(c, words[2]);
    d = Step(d, words[3]);
  }
  lanes_[0] = a;
  lanes_[1] = b;
  lanes_[2] = c;
  lanes_[3] = d;
}

void FrameSum::Update(const void* data, size_t size) {
  const auto* at = static_cast<const unsigned char*>(data);
  total_ += size;
  if (held_bytes_ > 0) {
    const size_t taken = std::min(size, kBlock - held_bytes_);
    std::memcpy(held_ + held_bytes_, at, taken);
    held_bytes_ += taken;
    at += taken;
    size -= taken;
    if (held_bytes_ < kBlock) return;
    Blocks(held_, 1);
    held_bytes_ = 0;
  }
  Blocks(at, size / kBlock);
  held_bytes_ = size % kBlock;
  std::memcpy(held_, at + size - held_bytes_, held_bytes_);
}

uint64_t FrameSum::Value() const {
  FrameSum end = *this;
  std::memset(end.held_ + end.held_bytes_, 0, kBlock - end.held_bytes_);
  end.Blocks(end.held_, 1);
  uint64_t sum = total_;
  for (const uint64_t lane : end.lanes_) sum = Step(sum, lane);
  return sum;
}

}  // namespace lepton::collectives
