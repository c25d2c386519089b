#include "runtime/kernels/cpu/conv/winograd_tiles.h"

#include <numeric>

#include "runtime/kernels/cpu/conv/scratch.h"

namespace lepton::kernels::conv {
namespace {

constexpr int64_t kVectorTiles = 16;

// Tiles that lie side by side wherever a span begins.
int64_t PieceOf(int64_t width) {
  int64_t piece = 8;
  while (width % piece != 0) piece /= 2;
  return piece;
}

}  // namespace

std::vector<TileRun> TileGrid::Runs(int64_t first, int64_t count) const {
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

TileTransform::TileTransform(const TileGrid& grid, int64_t channels, int64_t height, int64_t width,
                             int64_t before_h, int64_t before_w, Of of)
    : grid_(grid),
      channels_(channels),
      height_(height),
      width_(width),
      before_h_(before_h),
      before_w_(before_w),
      of_(of),
      reach_(of == Of::kInputs ? 4 : 2),
      piece_(PieceOf(grid.width)),
      pitch_(2 * std::min(grid.width, kSpanTiles) + reach_ - 2),
      period_images_(std::lcm(grid.of_image(), kSpanTiles) / grid.of_image()) {
  const int64_t whole = grid_.tiles() / kSpanTiles;
  const int64_t period = period_images_ * grid_.of_image() / kSpanTiles;
  for (int64_t i = 0; i < std::min(whole, period); ++i) {
    spans_.push_back(MakeSpan(grid_.Runs(i * kSpanTiles, kSpanTiles)));
  }
  if (grid_.tiles() % kSpanTiles != 0) {
    last_ = MakeSpan(grid_.Runs(whole * kSpanTiles, kSpanTiles));
  }
}

TileTransform::Span TileTransform::MakeSpan(const std::vector<TileRun>& runs) const {
  Span span;
  for (const TileRun* begin = runs.data(); begin != runs.data() + runs.size();) {
    const TileRun* end = begin + 1;
    // In wide images two runs need little of the same lines.
    if (grid_.width <= kSpanTiles) {
      while (end != runs.data() + runs.size() && end->image == begin->image) ++end;
    }
    AddGroup(begin, end, span);
    begin = end;
  }
  const auto nothing = static_cast<int32_t>(span.size);
  span.places.resize(kSpanTiles / piece_, nothing);
  span.size = RoundUp(span.size + reach_ * pitch_ + 2 * kVectorTiles, kVectorTiles);
  return span;
}

void TileTransform::AddGroup(const TileRun* begin, const TileRun* end, Span& span) const {
  const int64_t tile_lines = end[-1].y - begin->y + 1;
  const int64_t tile_x = tile_lines == 1 ? begin->x : 0;
  const int64_t tiles = tile_lines == 1 ? begin->count : grid_.width;
  for (const TileRun* run = begin; run != end; ++run) {
    for (int64_t tile = 0; tile < run->count; tile += piece_) {
      span.places.push_back(static_cast<int32_t>(span.size + 2 * (run->y - begin->y) * pitch_ +
                                                 2 * (run->x + tile - tile_x)));
    }
  }
  const int64_t lines = 2 * tile_lines + reach_ - 2, columns = 2 * tiles + reach_ - 2;
  const int64_t left = 2 * tile_x - before_w_;
  const int64_t first = std::max<int64_t>(0, left), last = std::min(width_, left + columns);
  for (int64_t i = 0; i < lines && first < last; ++i) {
    const int64_t line = 2 * begin->y + i - before_h_;
    if (line < 0 || line >= height_) continue;
    span.lines.push_back({(begin->image * channels_ * height_ + line) * width_ + first,
                          static_cast<int32_t>(span.size + i * pitch_ + first - left),
                          static_cast<int32_t>(last - first)});
  }
  span.size += lines * pitch_;
}

simd::TileSpan TileTransform::SpanOf(int64_t first, int64_t* begin) const {
  const int64_t index = first / kSpanTiles, whole = grid_.tiles() / kSpanTiles;
  const auto period = static_cast<int64_t>(spans_.size());
  const Span& span = index < whole ? spans_[index % period] : last_;
  const int64_t images = index < whole ? index / period * period_images_ : 0;
  *begin = images * channels_ * height_ * width_;
  return {kSpanTiles / kVectorTiles,
          piece_,
          span.places.data(),
          pitch_,
          span.size,
          span.lines.data(),
          static_cast<int64_t>(span.lines.size())};
}

template <typename Number>
void TileTransform::RunLoop(typename simd::TileLoops<Number>::Loop* transform, const Number* x,
                            int64_t first, int64_t count, int64_t first_channel, int64_t channels,
                            Number* v, int64_t product_pitch, int64_t pitch) const {
  for (int64_t tile = 0; tile < count; tile += kSpanTiles) {
    if (first + tile >= grid_.tiles()) {
      for (int64_t k = 0; k < kProducts; ++k) {
        for (int64_t c = 0; c < channels; ++c) {
          std::memset(v + k * product_pitch + c * pitch + tile, 0, (count - tile) * sizeof(Number));
        }
      }
      return;
    }
    int64_t begin = 0;
    const simd::TileSpan span = SpanOf(first + tile, &begin);
    transform(span, channels, x + begin + first_channel * height_ * width_, height_ * width_,
              reinterpret_cast<float*>(ThreadMemory<3>(2 * span.size * 4)), v + tile, product_pitch,
              pitch);
  }
}

void TileTransform::Run(const float* x, int64_t first, int64_t count, int64_t first_channel,
                        int64_t channels, float* v, int64_t product_pitch, int64_t pitch) const {
  const auto& loops = simd::BestLoops().tiles;
  RunLoop(of_ == Of::kInputs ? loops.inputs : loops.gradients, x, first, count, first_channel,
          channels, v, product_pitch, pitch);
}

void TileTransform::Run(const uint16_t* x, int64_t first, int64_t count, int64_t first_channel,
                        int64_t channels, uint16_t* v, int64_t product_pitch, int64_t pitch) const {
  const auto& loops = simd::BestLoops().tiles_bf16;
  RunLoop(of_ == Of::kInputs ? loops.inputs : loops.gradients, x, first, count, first_channel,
          channels, v, product_pitch, pitch);
}

void TileTransform::RunPairs(const uint16_t* x, int64_t first, uint16_t* panels,
                             int64_t product_pitch) const {
  int64_t begin = 0;
  const simd::TileSpan span = SpanOf(first, &begin);
  simd::BestLoops().winograd_in_pairs(span, channels_, x + begin, height_ * width_,
                                      reinterpret_cast<float*>(ThreadMemory<3>(4 * span.size * 4)),
                                      panels, product_pitch);
}

}  // namespace lepton::kernels::conv
