// Images as the transformed tiles of minimal filtering (winograd_kernel.h): tile (y, x) of an image
// is about its pixels (2 y, 2 x) to (2 y + 1, 2 x + 1); tiles are counted line by line, image by
// image. Threads: plain values, constant once made.
#pragma once

#include <algorithm>
#include <array>
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

// Where the output pixels of up to kSpanTiles tiles go: each tile's first to places in an array,
// which are stretches of a channel's pixels.
class TilePixels {
 public:
  struct Stretch {
    int64_t from, count;  // in the array
    int64_t to;           // in y's first channel
  };
  // Of y [images, channels, height, width].
  TilePixels(const std::vector<TileRun>& runs, int64_t height, int64_t width, int64_t channels);

  int64_t tiles() const { return tiles_; }
  // Of each tile: its upper left pixel, its lower left one.
  const int32_t* places() const { return places_.data(); }
  const std::vector<Stretch>& stretches() const { return stretches_; }

 private:
  void Add(int64_t from, int64_t count, int64_t to);

  int64_t tiles_ = 0;
  std::array<int32_t, 2 * kSpanTiles> places_;
  std::vector<Stretch> stretches_;
};

// Short stretches, mostly: a call of memcpy would take longer.
inline void CopyFew(const float* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) std::memcpy(to + i, from + i, 8 * sizeof(float));
  for (; i < count; ++i) to[i] = from[i];
}

class TileTransform {
 public:
  // Of images [channels, height, width], before which `before` lines and columns are 0.
  enum class Of {
    kInputs,     // pixels (2 y - before, 2 x - before) and on, 4 x 4
    kGradients,  // 2 x 2
  };
  TileTransform(const TileGrid& grid, int64_t channels, int64_t height, int64_t width,
                int64_t before_h, int64_t before_w, Of of);

  // Number k of tile first + i of channel first_channel + c to
  // v[k * product_pitch + c * pitch + i], for i < count: both multiples of kSpanTiles. Tiles that
  // there are not are 0. Uses ThreadMemory<3>.
  void Run(const float* x, int64_t first, int64_t count, int64_t first_channel, int64_t channels,
           float* v, int64_t product_pitch, int64_t pitch) const;
  // Of images of bf16 kSpanTiles tiles from `first` on, of which the first is there: as
  // simd::TurnedTileLoops has them. Use ThreadMemory<3>.
  void ToBlocks(const uint16_t* x, int64_t first, uint16_t* blocks, int64_t product_pitch) const;
  void ToPanel(const uint16_t* x, int64_t first, int64_t first_channel, int64_t channels,
               uint16_t* panel, int64_t product_pitch) const;

 private:
  struct Span {
    std::vector<int32_t> places;
    std::vector<simd::TileSpan::Line> lines;
    int64_t size = 0;
    // Of bf16, in the same places.
    std::vector<simd::TurnedTiles::Stretch> stretches;
    std::vector<int32_t> zeros, tiles;
  };
  // The one that begins at a tile, as whose channels all lie, and where in x its images begin.
  const Span& SpanOf(int64_t first, int64_t* begin) const;
  simd::TurnedTiles Turned(const Span& span) const;
  // The tiles of `runs`, which are those of one span.
  Span MakeSpan(const std::vector<TileRun>& runs) const;
  // One image's runs, with the lines that they need.
  void AddGroup(const TileRun* begin, const TileRun* end, Span& span) const;
  // What bf16 needs, from places and lines.
  void AddTurned(Span& span) const;

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
