// What the device code of this folder is written with. nvcc compiles it for GPUs; g++ compiles the
// same sources for the host with emulation/threads.h in place of CUDA's headers, which is how tests
// run them where no GPU is (docs/decisions/emulated-gpu.md). So: no <<<>>>, no atomics on floats,
// shared memory and warps through what is here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "runtime/kernels/cuda/emulation/threads.h"
#endif

namespace lepton::kernels::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Grid {
  int64_t x = 1;
  int64_t y = 1;
  int64_t z = 1;
};

// Blocks of `per_block` that cover `count`. A grid has at most 65535 along y and z: what grows with
// a batch lies along x.
constexpr int64_t Blocks(int64_t count, int64_t per_block) {
  return (count + per_block - 1) / per_block;
}

#ifdef __CUDACC__

// A block's dynamic shared memory.
template <typename T>
__device__ inline T* Shared() {
  extern __shared__ __align__(16) unsigned char lepton_shared_memory[];
  return reinterpret_cast<T*>(lepton_shared_memory);
}

// Queues kernel(arguments) for a grid of blocks of `threads`. An empty grid is nothing to do.
template <typename... Parameters, typename... Arguments>
void Launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
            Stream stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(stream.handle)>>>(
      Parameters(arguments)...);
}
// For kernels without barriers, shuffles and shared memory; the emulation runs them faster.
template <typename... Parameters, typename... Arguments>
void LaunchFlat(void (*kernel)(Parameters...), Grid grid, int threads, Stream stream,
                Arguments... arguments) {
  Launch(kernel, grid, threads, 0, stream, arguments...);
}

#else

template <typename T>
T* Shared() {
  return static_cast<T*>(emulation::SharedMemory());
}

template <typename... Parameters, typename... Arguments>
void Launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
            Stream stream, Arguments... arguments) {
  emulation::Enqueue(stream, {grid.x, grid.y, grid.z, threads, shared_bytes, true},
                     [=] { kernel(Parameters(arguments)...); });
}
template <typename... Parameters, typename... Arguments>
void LaunchFlat(void (*kernel)(Parameters...), Grid grid, int threads, Stream stream,
                Arguments... arguments) {
  emulation::Enqueue(stream, {grid.x, grid.y, grid.z, threads, 0, false},
                     [=] { kernel(Parameters(arguments)...); });
}

#endif

// bfloat16: the upper half of an f32.
struct Bf16 {
  uint16_t bits;
};

__device__ inline float ToFloat(float value) {
  return value;
}
__device__ inline float ToFloat(Bf16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
// To nearest, ties to even; NaN stays NaN.
__device__ inline Bf16 RoundToBf16(float value) {
  const uint32_t word = __float_as_uint(value);
  const uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
  const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(nan ? (word >> 16) | 0x40u : rounded >> 16)};
}
template <typename T>
__device__ inline T FromFloat(float value);
template <>
__device__ inline float FromFloat<float>(float value) {
  return value;
}
template <>
__device__ inline Bf16 FromFloat<Bf16>(float value) {
  return RoundToBf16(value);
}

// Memory whose element type is known when it runs only: f32, or bf16.
struct Floats {
  const void* data;
  int bf16;
  __device__ float operator[](int64_t i) const {
    return bf16 != 0 ? ToFloat(static_cast<const Bf16*>(data)[i])
                     : static_cast<const float*>(data)[i];
  }
};
struct MutableFloats {
  void* data;
  int bf16;
  __device__ void Set(int64_t i, float value) const {
    if (bf16 != 0) {
      static_cast<Bf16*>(data)[i] = RoundToBf16(value);
    } else {
      static_cast<float*>(data)[i] = value;
    }
  }
};

// The index of a thread among all of its grid, along x.
__device__ inline int64_t GlobalIndex() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Over the lanes of a warp; all get the result, which is the same for every order of threads.
__device__ inline float WarpSum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}
__device__ inline float WarpMax(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Over the threads of a block, whose number is a multiple of 32; `scratch`: 32 floats of shared
// memory, free again after the next barrier.
__device__ inline float BlockSum(float value, float* scratch) {
  value = WarpSum(value);
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return value;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  const int lane = threadIdx.x % kWarp;
  return WarpSum(lane < warps ? scratch[lane] : 0.0f);
}

}  // namespace lepton::kernels::cuda
