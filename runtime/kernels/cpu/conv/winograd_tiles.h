// Images as the transformed tiles of minimal filtering (winograd_kernel.h): tile (y, x) of an image
// is about its pixels (2 y, 2 x) to (2 y + 1, 2 x + 1); tiles are counted line by line, image by
// image. Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {

inline constexpr int64_t kWinogradTaps = 9;  // of a window of 3 x 3
inline constexpr int64_t kProducts = 16;     // numbers of a transformed tile

// Tiles side by side in one line of one image: from `lane` on of those that are wanted.
struct TileRun {
  int64_t lane, image, y, x, count;
};

struct TileGrid {
  int64_t images, height, width;

  int64_t of_image() const { return height * width; }
  int64_t tiles() const { return images * of_image(); }
  // Tiles [first, first + count), or those of them that there are.
  std::vector<TileRun> Runs(int64_t first, int64_t count) const {
    std::vector<TileRun> runs;
    const int64_t end = std::min(first + count, tiles());
    for (int64_t tile = first; tile < end;) {
      const int64_t y = tile % of_image() / width, x = tile % width;
      const int64_t length = std::min(end - tile, width - x);
      runs.push_back({tile - first, tile / of_image(), y, x, length});
      tile += length;
    }
    return runs;
  }
};

// Short stretches, mostly: a call of memcpy would take longer.
inline void CopyFew(const float* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) std::memcpy(to + i, from + i, 32);
  for (; i < count; ++i) to[i] = from[i];
}

class TileTransform {
 public:
  // simd::Loops::winograd_in or winograd_gradient.
  using Loop = void (*)(int64_t count, const float* const* planes, int64_t pitch, float* v,
                        int64_t v_pitch);

  // Images of [channels, height, width], before which `before` lines and columns are 0.
  TileTransform(const TileGrid& grid, int64_t channels, int64_t height, int64_t width,
                int64_t before_h, int64_t before_w, Loop loop)
      : channels_(channels),
        height_(height),
        width_(width),
        before_h_(before_h),
        before_w_(before_w),
        line_(grid.width + 1),
        loop_(loop) {}

  // Number k of the tile at lane i of channel first + c to v[k * product_pitch + c * pitch + i];
  // lanes without a tile, up to `pitch`, are 0. Uses ThreadMemory<3>.
  void Run(const float* x, const std::vector<TileRun>& runs, int64_t first, int64_t count, float* v,
           int64_t product_pitch, int64_t pitch) const {
    const int64_t tiles = runs.back().lane + runs.back().count;
    for (int64_t k = 0; k < kProducts && tiles < pitch; ++k) {
      for (int64_t c = 0; c < count; ++c) {
        std::memset(v + k * product_pitch + c * pitch + tiles, 0, (pitch - tiles) * 4);
      }
    }
    for (auto begin = runs.begin(); begin != runs.end();) {
      const auto end = std::find_if(begin, runs.end(),
                                    [&](const TileRun& run) { return run.image != begin->image; });
      const float* image = x + (begin->image * channels_ + first) * height_ * width_;
      for (int64_t c = 0; c < count; ++c) {
        OfImage(image + c * height_ * width_, &*begin, &*begin + (end - begin), v + c * pitch,
                product_pitch);
      }
      begin = end;
    }
  }

 private:
  // One channel of an image. Its lines and columns are parted into even and odd ones, so that what
  // all tiles have at one place is one stretch of memory; between the lines of tiles lies one that
  // is none.
  void OfImage(const float* x, const TileRun* begin, const TileRun* end, float* v,
               int64_t product_pitch) const {
    constexpr int64_t kLanes = 16;  // of the loops
    const int64_t first = begin->y, lines = end[-1].y - first + 1;
    const int64_t plane = RoundUp((lines + 1) * line_ + 2, kLanes) + kLanes;
    const int64_t positions = RoundUp(lines * line_, kLanes);
    const int64_t padded = RoundUp(2 * line_, kLanes);
    auto* memory =
        reinterpret_cast<float*>(ThreadMemory<3>((4 * plane + padded + kProducts * positions) * 4));
    float* const line = memory + 4 * plane;
    float* const products = line + padded;
    for (int64_t i = 0; i < 2 * (lines + 1); ++i) {
      float* even = memory + i % 2 * 2 * plane + i / 2 * line_;
      PadLine(x, 2 * first + i - before_h_, line);
      simd::BestLoops().split_pairs(line_, line, even, even + plane);
    }
    const float* const planes[4] = {memory, memory + plane, memory + 2 * plane, memory + 3 * plane};
    loop_(positions, planes, line_, products, positions);
    for (const TileRun* run = begin; run < end; ++run) {
      const float* from = products + (run->y - first) * line_ + run->x;
      for (int64_t k = 0; k < kProducts; ++k) {
        CopyFew(from + k * positions, run->count, v + k * product_pitch + run->lane);
      }
    }
  }

  void PadLine(const float* x, int64_t source, float* to) const {
    const int64_t length = 2 * line_;
    const int64_t columns = std::min(width_, length - before_w_);
    if (source < 0 || source >= height_) {
      std::memset(to, 0, length * 4);
      return;
    }
    std::memset(to, 0, before_w_ * 4);
    std::memcpy(to + before_w_, x + source * width_, columns * 4);
    std::memset(to + before_w_ + columns, 0, (length - before_w_ - columns) * 4);
  }

  const int64_t channels_, height_, width_, before_h_, before_w_;
  const int64_t line_;  // places of a line of tiles
  const Loop loop_;
};

}  // namespace lepton::kernels::conv
