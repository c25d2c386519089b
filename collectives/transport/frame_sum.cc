#include "collectives/transport/frame_sum.h"

#include <algorithm>
#include <bit>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lepton::collectives {
namespace {

constexpr uint64_t kMultiplier =
    0x9FB21C651E98DF25u;  // odd: each step can be undone, so none loses
constexpr int kTurn = 29;
constexpr uint64_t kSeed = 0x9E3779B97F4A7C15u;

uint64_t Step(uint64_t lane, uint64_t word) {
  return std::rotl((lane ^ word) * kMultiplier, kTurn);
}

using StepBlocks = void(uint64_t* lanes, const unsigned char* data, size_t blocks);

template <size_t kLanes>
void PlainBlocks(uint64_t* lanes, const unsigned char* data, size_t blocks) {
  for (; blocks > 0; --blocks) {
    for (size_t i = 0; i < kLanes; ++i, data += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, data, sizeof(word));
      lanes[i] = Step(lanes[i], word);
    }
  }
}

#if defined(__x86_64__)
template <size_t kLanes>
__attribute__((target("avx512f,avx512dq"))) void VectorBlocks(uint64_t* lanes,
                                                              const unsigned char* data,
                                                              size_t blocks) {
  constexpr size_t kVectors = kLanes / 8;
  const __m512i multiplier = _mm512_set1_epi64(static_cast<int64_t>(kMultiplier));
  __m512i sums[kVectors];
  for (size_t i = 0; i < kVectors; ++i) sums[i] = _mm512_loadu_si512(lanes + 8 * i);
  for (; blocks > 0; --blocks) {
    for (size_t i = 0; i < kVectors; ++i, data += sizeof(__m512i)) {
      const __m512i mixed = _mm512_xor_si512(sums[i], _mm512_loadu_si512(data));
      sums[i] = _mm512_rol_epi64(_mm512_mullo_epi64(mixed, multiplier), kTurn);
    }
  }
  for (size_t i = 0; i < kVectors; ++i) _mm512_storeu_si512(lanes + 8 * i, sums[i]);
}
#endif

template <size_t kLanes>
StepBlocks* BestBlocks() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
    return &VectorBlocks<kLanes>;
  }
#endif
  return &PlainBlocks<kLanes>;
}

}  // namespace

void FrameSum::Blocks(const unsigned char* data, size_t blocks) {
  if (blocks == 0) return;
  static StepBlocks* const best = BestBlocks<kLanes>();
  if (!lanes_begun_) {
    for (size_t i = 0; i < kLanes; ++i) lanes_[i] = kSeed * (i + 1);
    lanes_begun_ = true;
  }
  best(lanes_, data, blocks);
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
  constexpr size_t kEnds = 4;
  uint64_t ends[kEnds] = {kSeed, ~kSeed, kMultiplier, ~kMultiplier};
  for (size_t i = 0; lanes_begun_ && i < kLanes; ++i) {
    ends[i % kEnds] = Step(ends[i % kEnds], lanes_[i]);
  }
  for (size_t at = 0, i = 0; at < held_bytes_; at += sizeof(uint64_t), ++i) {
    uint64_t word = 0;
    std::memcpy(&word, held_ + at, std::min(sizeof(word), held_bytes_ - at));
    ends[i % kEnds] = Step(ends[i % kEnds], word);
  }
  uint64_t sum = total_;
  for (const uint64_t end : ends) sum = Step(sum, end);
  return sum;
}

}  // namespace lepton::collectives
