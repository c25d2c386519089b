#include "runtime/kernels/cpu/conv/winograd_tiles.h"

#include <numeric>

#include "runtime/kernels/cpu/conv/scratch.h"

namespace lepton::kernels::conv {
namespace {

constexpr int64_t kVectorTiles = 16;
constexpr int64_t kTurnedChannels = 32;  // side by side

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

TilePixels::TilePixels(const std::vector<TileRun>& runs, int64_t height, int64_t width,
                       int64_t channels) {
  for (const TileRun& run : runs) {
    const int64_t upper = 4 * tiles_, lower = upper + 2 * run.count;
    const int64_t to = (run.image * channels * height + 2 * run.y) * width + 2 * run.x;
    const int64_t count = std::min(2 * run.count, width - 2 * run.x);
    Add(upper, count, to);
    if (2 * run.y + 1 < height) Add(lower, count, to + width);
    for (int64_t i = 0; i < run.count; ++i, ++tiles_) {
      places_[2 * tiles_] = static_cast<int32_t>(upper + 2 * i);
      places_[2 * tiles_ + 1] = static_cast<int32_t>(lower + 2 * i);
    }
  }
}

void TilePixels::Add(int64_t from, int64_t count, int64_t to) {
  if (!stretches_.empty()) {
    Stretch& last = stretches_.back();
    if (last.from + last.count == from && last.to + last.count == to) {
      last.count += count;
      return;
    }
  }
  stretches_.push_back({from, count, to});
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
  const bool whole = static_cast<int64_t>(span.places.size()) == kSpanTiles / piece_;
  span.places.resize(kSpanTiles / piece_, nothing);
  const int64_t size = span.size + reach_ * pitch_ + 2 * kVectorTiles;
  if (!whole) span.size = size;
  AddTurned(span);
  span.size = RoundUp(size, kVectorTiles);
  return span;
}

void TileTransform::AddTurned(Span& span) const {
  for (int64_t tile = 0; tile < kSpanTiles; ++tile) {
    span.tiles.push_back(span.places[tile / piece_] + static_cast<int32_t>(2 * (tile % piece_)));
  }
  std::vector<bool> filled(span.size);
  int64_t next = -1;  // pixel of the channel, behind the last one
  for (const simd::TileSpan::Line& line : span.lines) {
    for (int32_t i = 0; i < line.count; ++i) {
      auto& all = span.stretches;
      if (line.from + i != next || all.back().count == kVectorTiles) {
        all.push_back({line.from + i, 0, {}});
      }
      all.back().to[all.back().count++] = line.to + i;
      filled[line.to + i] = true;
      next = line.from + i + 1;
    }
  }
  for (int32_t place = 0; place < span.size; ++place) {
    if (!filled[place]) span.zeros.push_back(place);
  }
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

const TileTransform::Span& TileTransform::SpanOf(int64_t first, int64_t* begin) const {
  const int64_t index = first / kSpanTiles, whole = grid_.tiles() / kSpanTiles;
  const auto period = static_cast<int64_t>(spans_.size());
  const int64_t images = index < whole ? index / period * period_images_ : 0;
  *begin = images * channels_ * height_ * width_;
  return index < whole ? spans_[index % period] : last_;
}

void TileTransform::Run(const float* x, int64_t first, int64_t count, int64_t first_channel,
                        int64_t channels, float* v, int64_t product_pitch, int64_t pitch) const {
  const simd::Loops& loops = simd::BestLoops();
  simd::TileLoop* const transform = of_ == Of::kInputs ? loops.tile_inputs : loops.tile_gradients;
  for (int64_t tile = 0; tile < count; tile += kSpanTiles) {
    if (first + tile >= grid_.tiles()) {
      for (int64_t k = 0; k < kProducts; ++k) {
        for (int64_t c = 0; c < channels; ++c) {
          std::memset(v + k * product_pitch + c * pitch + tile, 0, (count - tile) * sizeof(float));
        }
      }
      return;
    }
    int64_t begin = 0;
    const Span& span = SpanOf(first + tile, &begin);
    const simd::TileSpan tiles{kSpanTiles / kVectorTiles,
                               piece_,
                               span.places.data(),
                               pitch_,
                               span.size,
                               span.lines.data(),
                               static_cast<int64_t>(span.lines.size())};
    transform(tiles, channels, x + begin + first_channel * height_ * width_, height_ * width_,
              reinterpret_cast<float*>(ThreadMemory<3>(2 * span.size * 4)), v + tile, product_pitch,
              pitch);
  }
}

simd::TurnedTiles TileTransform::Turned(const Span& span) const {
  return {span.stretches.data(),
          static_cast<int64_t>(span.stretches.size()),
          span.zeros.data(),
          static_cast<int64_t>(span.zeros.size()),
          span.tiles.data(),
          pitch_,
          span.size};
}

void TileTransform::ToBlocks(const uint16_t* x, int64_t first, uint16_t* blocks,
                             int64_t product_pitch) const {
  int64_t begin = 0;
  const Span& span = SpanOf(first, &begin);
  auto* const turned = reinterpret_cast<float*>(ThreadMemory<3>(span.size * kTurnedChannels * 4));
  simd::BestLoops().turned_tiles.to_blocks(Turned(span), channels_, x + begin, height_ * width_,
                                           turned, blocks, product_pitch);
}

void TileTransform::ToPanel(const uint16_t* x, int64_t first, int64_t first_channel,
                            int64_t channels, uint16_t* panel, int64_t product_pitch) const {
  int64_t begin = 0;
  const Span& span = SpanOf(first, &begin);
  auto* const turned = reinterpret_cast<float*>(ThreadMemory<3>(span.size * kTurnedChannels * 4));
  const simd::TurnedTileLoops& loops = simd::BestLoops().turned_tiles;
  const auto transform = of_ == Of::kInputs ? loops.inputs_to_panel : loops.gradients_to_panel;
  transform(Turned(span), channels, x + begin + first_channel * height_ * width_, height_ * width_,
            turned, panel, product_pitch);
}

}  // namespace lepton::kernels::conv
