// Images as the transformed tiles of minimal filtering (winograd_kernel.h): tile (y, x) of an image
// is about its pixels (2 y, 2 x) to (2 y + 1, 2 x + 1); tiles are counted line by line, image by
// image. Threads: plain values, constant once made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {

inline constexpr int64_t kWinogradTaps = 9;  // of a window of 3 x 3
inline constexpr int64_t kProducts = 16;     // numbers of a transformed tile
inline constexpr int64_t kSpanTiles = 32;    // that are transformed at a time

// Tiles side by side in one line of one image: from `lane` on of those that are wanted.
struct TileRun {
  int64_t lane, image, y, x, count;
};

struct TileGrid {
  int64_t images, height, width;

  int64_t of_image() const { return height * width; }
  int64_t tiles() const { return images * of_image(); }
  // Tiles [first, first + count), or those of them that there are.
  std::vector<TileRun> Runs(int64_t first, int64_t count) const;
};

// Short stretches, mostly: a call of memcpy would take longer.
template <typename Number>
void CopyFew(const Number* from, int64_t count, Number* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) std::memcpy(to + i, from + i, 8 * sizeof(Number));
  for (; i < count; ++i) to[i] = from[i];
}

class TileTransform {
 public:
  // Of images [channels, height, width], before which `before` lines and columns are 0.
  enum class Of {
    kInputs,     // pixels (2 y - before, 2 x - before) and on, 4 x 4, by TileLoops::inputs
    kGradients,  // 2 x 2, by TileLoops::gradients
  };
  TileTransform(const TileGrid& grid, int64_t channels, int64_t height, int64_t width,
                int64_t before_h, int64_t before_w, Of of);

  // Number k of tile first + i of channel first_channel + c to
  // v[k * product_pitch + c * pitch + i], for i < count: both multiples of kSpanTiles. Tiles that
  // there are not are 0. Uses ThreadMemory<3>.
  void Run(const float* x, int64_t first, int64_t count, int64_t first_channel, int64_t channels,
           float* v, int64_t product_pitch, int64_t pitch) const;
  // The same of bf16, rounded to bf16.
  void Run(const uint16_t* x, int64_t first, int64_t count, int64_t first_channel, int64_t channels,
           uint16_t* v, int64_t product_pitch, int64_t pitch) const;
  // All channels of kSpanTiles tiles, of which the first is there, of images of bf16: number k as a
  // panel of a product at panels + k * product_pitch. Of kInputs. Uses ThreadMemory<3>.
  void RunPairs(const uint16_t* x, int64_t first, uint16_t* panels, int64_t product_pitch) const;

 private:
  struct Span {
    std::vector<int32_t> places;
    std::vector<simd::TileSpan::Line> lines;
    int64_t size = 0;
  };
  template <typename Number>
  void RunLoop(typename simd::TileLoops<Number>::Loop* transform, const Number* x, int64_t first,
               int64_t count, int64_t first_channel, int64_t channels, Number* v,
               int64_t product_pitch, int64_t pitch) const;
  // The one that begins at a tile, as whose channels all lie, and where in x its images begin.
  simd::TileSpan SpanOf(int64_t first, int64_t* begin) const;
  // The tiles of `runs`, which are those of one span.
  Span MakeSpan(const std::vector<TileRun>& runs) const;
  // One image's runs, with the lines that they need.
  void AddGroup(const TileRun* begin, const TileRun* end, Span& span) const;

  const TileGrid grid_;
  const int64_t channels_, height_, width_, before_h_, before_w_;
  const Of of_;
  const int64_t reach_;  // lines and columns of a tile
  const int64_t piece_, pitch_;
  // Spans repeat after a number of images; a last one with fewer tiles is made alone.
  const int64_t period_images_;
  std::vector<Span> spans_;
  Span last_;
};

}  // namespace lepton::kernels::conv
