#include "worker/train/parameter_digest.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/base/thread_pool.h"

namespace lepton::worker {
namespace {

constexpr size_t kChunk = size_t{1} << 18;  // floats
constexpr size_t kVectorBytes = 64;
constexpr size_t kBlockBytes = 2 * kVectorBytes;

// 16 independent 32-bit hashes. The compiler cuts them down to what the CPU has.
using Lanes = uint32_t __attribute__((vector_size(kVectorBytes)));

// Each of the three operations can be undone, so a word that differs makes a lane that differs, and
// keeps it so.
__attribute__((always_inline)) inline void Mix(Lanes& lanes, const char* at) {
  Lanes words;
  std::memcpy(&words, at, sizeof(words));
  Lanes mixed = lanes + words;
  mixed += mixed << 5;
  lanes = (mixed << 13) | (mixed >> 19);
}

__attribute__((always_inline)) inline uint64_t MixInto(uint64_t sum, uint64_t value) {
  sum = (sum ^ value) * 0x9E3779B97F4A7C15u;
  return sum ^ sum >> 32;
}

__attribute__((always_inline)) inline uint64_t ChunkBody(std::span<const float> values) {
  Lanes first{}, second{};
  const char* at = reinterpret_cast<const char*>(values.data());
  size_t left = values.size_bytes();
  for (; left >= kBlockBytes; left -= kBlockBytes, at += kBlockBytes) {
    Mix(first, at);
    Mix(second, at + kVectorBytes);
  }
  if (left > 0) {
    char last[kBlockBytes] = {};
    std::memcpy(last, at, left);
    Mix(first, last);
    Mix(second, last + kVectorBytes);
  }
  uint64_t sum = values.size();
  for (size_t i = 0; i < kVectorBytes / sizeof(uint32_t); ++i) sum = MixInto(sum, first[i]);
  for (size_t i = 0; i < kVectorBytes / sizeof(uint32_t); ++i) sum = MixInto(sum, second[i]);
  return sum;
}

uint64_t ChunkBaseline(std::span<const float> values) {
  return ChunkBody(values);
}
#ifdef __x86_64__
__attribute__((target("avx512f,prefer-vector-width=512"))) uint64_t ChunkAvx512(
    std::span<const float> values) {
  return ChunkBody(values);
}
#endif

uint64_t ChunkDigest(std::span<const float> values) {
#ifdef __x86_64__
  static const bool wide = __builtin_cpu_supports("avx512f");
  if (wide) return ChunkAvx512(values);
#endif
  return ChunkBaseline(values);
}

}  // namespace

uint64_t DigestOf(std::span<const float> values) {
  if (values.size() <= kChunk) return ChunkDigest(values);
  const size_t chunks = (values.size() + kChunk - 1) / kChunk;
  std::vector<uint64_t> digests(chunks);
  ThreadPool::Compute().ParallelFor(
      static_cast<int64_t>(chunks), 1, [&](int64_t begin, int64_t end) {
        for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
          const size_t from = i * kChunk;
          digests[i] = ChunkDigest(values.subspan(from, std::min(kChunk, values.size() - from)));
        }
      });
  uint64_t sum = values.size();
  for (const uint64_t digest : digests) sum = MixInto(sum, digest);
  return sum;
}

uint64_t DigestOfWeights(nn::TrainingProgram& program) {
  uint64_t sum = 0;
  std::vector<float> values;
  for (const nn::ParameterView& view : program.parameters()) {
    if (view.offset < program.weights_begin()) continue;
    values.resize(static_cast<size_t>(view.size));
    program.ReadWeights(view.offset, values);
    sum = MixInto(sum, DigestOf(values));
  }
  return sum;
}

}  // namespace lepton::worker
