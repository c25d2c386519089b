// How the keys of a head are cut into tiles: at multiples of TileKeys, so that the sums of a query
// do not depend on which others are computed with it. A first tile may begin within one, at a
// multiple of KeyUnit. Threads: pure functions.
#pragma once

#include <numeric>

#include "runtime/kernels/cpu/attention/flash.h"
#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::attention {

inline const gemm::Micro& MicroOf(DType dtype) {
  return dtype == DType::kBF16 ? gemm::Bf16Micro() : gemm::F32Micro();
}

inline int64_t KeyUnit(const gemm::Micro& micro) {
  return std::lcm(micro.block_rows, gemm::kPanelColumns);
}

inline int64_t TileKeys(const gemm::Micro& micro) {
  return kTile / KeyUnit(micro) * KeyUnit(micro);
}

// Where the tile ends that the key is in.
inline int64_t NextTile(int64_t key, int64_t tile) {
  return (key / tile + 1) * tile;
}

}  // namespace lepton::kernels::attention
