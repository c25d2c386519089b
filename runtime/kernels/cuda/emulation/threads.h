// CUDA's execution model on the host, for device/*.cu compiled by g++. The threads of a block are
// fibers on one host thread: each runs until it meets a barrier or a shuffle, then the next one.
// What it catches: results, out-of-bounds accesses (under AddressSanitizer), barriers and shuffles
// that some threads do not reach (the process ends with a message), and, by running the threads in
// the opposite order (ReverseThreads), barriers that are missing. What it cannot: timing, memory
// ordering without barriers, and what a GPU's compiler does.
// Threads: one launch at a time in a process.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "runtime/kernels/cuda/stream.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

namespace lepton::kernels::cuda::emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
extern Index current_thread, current_block, block_extent, grid_extent;

struct Shape {
  int64_t x, y, z;
  int threads;
  size_t shared_bytes;
  bool barriers;  // fibers are needed
};
// Runs the grid now, or keeps it while the stream records.
void Enqueue(Stream stream, const Shape& shape, std::function<void()> thread);
void Enqueue(Stream stream, std::function<void()> work);

void* SharedMemory();
// Threads of a block run from the last to the first.
void ReverseThreads(bool reverse);
// What a grid takes along y and z. Fewer than a GPU does, so that a test need not run as many.
inline constexpr int64_t kMostBlocks = 65535;
void LimitBlocks(int64_t most);

// What threads call.
void BlockBarrier();
void WarpBarrier();
// Every lane gives a word and gets the one of lane `from(lane)`.
uint64_t Exchange(uint64_t word, unsigned from);
// Every lane gives `bytes` at `words`; until the lane's next exchange they can be read by lane.
const void* Share(const void* words, size_t bytes);
const void* SharedBy(unsigned lane);
unsigned Lane();

template <typename T>
T ExchangeValue(T value, unsigned from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = Exchange(word, from);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace lepton::kernels::cuda::emulation

#define threadIdx ::lepton::kernels::cuda::emulation::current_thread
#define blockIdx ::lepton::kernels::cuda::emulation::current_block
#define blockDim ::lepton::kernels::cuda::emulation::block_extent
#define gridDim ::lepton::kernels::cuda::emulation::grid_extent

inline void __syncthreads() {
  lepton::kernels::cuda::emulation::BlockBarrier();
}
inline void __syncwarp(unsigned = 0xffffffffu) {
  lepton::kernels::cuda::emulation::WarpBarrier();
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  using namespace lepton::kernels::cuda::emulation;
  return ExchangeValue(value, Lane() ^ static_cast<unsigned>(mask));
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return lepton::kernels::cuda::emulation::ExchangeValue(value, static_cast<unsigned>(lane) % 32);
}
inline float __uint_as_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
inline uint32_t __float_as_uint(float value) {
  return std::bit_cast<uint32_t>(value);
}
inline float rsqrtf(float value) {
  return 1.0f / std::sqrt(value);
}
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
