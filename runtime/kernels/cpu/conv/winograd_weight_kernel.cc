#include <algorithm>
#include <type_traits>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/conv/winograd_kernel.h"
#include "runtime/kernels/cpu/conv/winograd_tiles.h"
#include "runtime/kernels/cpu/conv_shape.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kTileBytes = 1 << 21;  // of transformed tiles at a time: they stay in the caches
constexpr int64_t kStepTiles = 256;      // that are multiplied at a time
constexpr int64_t kPad = 32;  // numbers, lest all products begin in the same ways of a cache

// dweights [out, in, 3, 3] by F(3 x 3, 2 x 2): for each of the 16 numbers of a tile, dy's
// [out, tiles] times x's [tiles, in], tiles of all images in their order; then back to the taps.
// Number: float, or of bf16, uint16_t, where both sides are made as panels.
template <typename Number>
class WinogradWeightKernel final : public graph::Kernel {
 public:
  explicit WinogradWeightKernel(const ConvShape& s)
      : in_channels_(s.in_channels),
        out_channels_(s.out_channels),
        grid_{s.images, CeilDiv(s.out_h, 2), CeilDiv(s.out_w, 2)},
        micro_(kDtype == DType::kF32 ? gemm::F32Micro() : gemm::Bf16Micro()),
        x_tiles_(grid_, s.in_channels, s.in_h, s.in_w, s.window.h.before, s.window.w.before,
                 TileTransform::Of::kInputs),
        dy_tiles_(grid_, s.out_channels, s.out_h, s.out_w, 0, 0, TileTransform::Of::kGradients),
        blocks_(CeilDiv(s.out_channels, micro_.block_rows)),
        panels_(CeilDiv(s.in_channels, kPanelColumns)),
        chunk_(std::min(
            RoundUp(grid_.tiles(), kStepTiles),
            std::max(kStepTiles, RoundUp(kTileBytes / (kProducts * int64_t{sizeof(Number)} *
                                                       (in_channels_ + out_channels_)),
                                         kStepTiles)))) {}

  // Transformed tiles of a chunk, x's and dy's: of f32 [products][channels][tiles], of bf16
  // [products][panels of channels], packed; sums [products][panels][blocks] of a block times a
  // panel.
  size_t workspace_bytes() const override {
    return kProducts *
           ((XNumbers() + DyNumbers()) * sizeof(Number) + ProductFloats() * sizeof(float));
  }

  void Run(const KernelContext& context) override {
    const Number* dy = context.input(0).as<Number>();
    const Number* x = context.input(1).as<Number>();
    auto* sums = static_cast<float*>(context.workspace());
    auto* x_tiles = reinterpret_cast<Number*>(sums + kProducts * ProductFloats());
    Number* dy_tiles = x_tiles + kProducts * XNumbers();
    for (int64_t tile = 0; tile < grid_.tiles(); tile += chunk_) {
      Transform(x, dy, tile, x_tiles, dy_tiles);
      ComputeLoop(kProducts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          Multiply(dy_tiles + k * DyNumbers(), x_tiles + k * XNumbers(), tile > 0,
                   sums + k * ProductFloats());
        }
      });
    }
    float* dweights = context.output(0).as<float>();
    ComputeLoop(panels_ * blocks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) Store(sums, i / blocks_, i % blocks_, dweights);
    });
  }

 private:
  static constexpr DType kDtype = std::is_same_v<Number, float> ? DType::kF32 : DType::kBF16;

  static constexpr bool kPairs = kDtype == DType::kBF16;

  // Of a product.
  int64_t XNumbers() const { return Numbers(in_channels_); }
  int64_t DyNumbers() const { return Numbers(out_channels_); }
  int64_t Numbers(int64_t channels) const {
    return (kPairs ? RoundUp(channels, kPanelColumns) : channels) * chunk_ + kPad;
  }
  int64_t BlockFloats() const { return micro_.block_rows * kPanelColumns; }
  int64_t ProductFloats() const { return panels_ * blocks_ * BlockFloats(); }

  // A chunk of tiles.
  void Transform(const float* x, const float* dy, int64_t tile, float* x_tiles,
                 float* dy_tiles) const {
    ComputeLoop(in_channels_ + out_channels_, 1, [&](int64_t begin, int64_t end) {
      const int64_t middle = std::clamp(in_channels_, begin, end);
      x_tiles_.Run(x, tile, chunk_, begin, middle - begin, x_tiles + begin * chunk_, XNumbers(),
                   chunk_);
      const int64_t first = middle - in_channels_;
      if (middle == end) return;
      dy_tiles_.Run(dy, tile, chunk_, first, end - middle, dy_tiles + first * chunk_, DyNumbers(),
                    chunk_);
    });
  }

  void Transform(const uint16_t* x, const uint16_t* dy, int64_t tile, uint16_t* x_tiles,
                 uint16_t* dy_tiles) const {
    const int64_t spans = chunk_ / kSpanTiles;
    const int64_t there = CeilDiv(std::min(chunk_, grid_.tiles() - tile), kSpanTiles);
    const int64_t x_panels = CeilDiv(in_channels_, kPanelColumns);
    const int64_t dy_panels = CeilDiv(out_channels_, kPanelColumns);
    ComputeLoop((x_panels + dy_panels) * spans, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t panel = i / spans, span = i % spans;
        if (panel < x_panels) {
          Panel(x_tiles_, x, in_channels_, panel, tile, span, span < there, x_tiles, XNumbers());
        } else {
          Panel(dy_tiles_, dy, out_channels_, panel - x_panels, tile, span, span < there, dy_tiles,
                DyNumbers());
        }
      }
    });
  }

  // A span of a panel of channels; 0 if no such tiles are there.
  void Panel(const TileTransform& transform, const uint16_t* images, int64_t channels,
             int64_t panel, int64_t tile, int64_t span, bool there, uint16_t* tiles,
             int64_t numbers) const {
    constexpr int64_t kNumbers = kPanelColumns * kSpanTiles;
    uint16_t* const to = tiles + panel * kPanelColumns * chunk_ + span * kNumbers;
    if (!there) {
      for (int64_t k = 0; k < kProducts; ++k) std::memset(to + k * numbers, 0, 2 * kNumbers);
      return;
    }
    const int64_t first = panel * kPanelColumns;
    transform.ToPanel(images, tile + span * kSpanTiles, first,
                      std::min(kPanelColumns, channels - first), to, numbers);
  }

  // One of the products, a chunk of tiles: sums (+)= dy * x.
  void Multiply(const float* dy, const float* x, bool add, float* sums) const {
    const int64_t rows = micro_.block_rows;
    const int64_t step = kStepTiles;
    auto* left = reinterpret_cast<float*>(ThreadMemory<1>(blocks_ * rows * step * 4));
    auto* right = reinterpret_cast<float*>(ThreadMemory<2>(panels_ * kPanelColumns * step * 4));
    for (int64_t k = 0; k < chunk_; k += step) {
      micro_.pack_blocks({dy + k, {kDtype, chunk_, 1}, 0, out_channels_, step, step}, left);
      micro_.pack_panels({x + k, {kDtype, 1, chunk_}, 0, in_channels_, step, step}, right);
      for (int64_t panel = 0; panel < panels_; ++panel) {
        for (int64_t block = 0; block < blocks_; ++block) {
          micro_.multiply(std::min(rows, out_channels_ - block * rows), step,
                          left + block * rows * step, right + panel * kPanelColumns * step,
                          sums + (panel * blocks_ + block) * BlockFloats(), add || k > 0);
        }
      }
    }
  }

  void Multiply(const uint16_t* dy, const uint16_t* x, bool add, float* sums) const {
    const int64_t panel_numbers = kPanelColumns * chunk_;
    for (int64_t k = 0; k < chunk_; k += kStepTiles) {
      for (int64_t panel = 0; panel < panels_; ++panel) {
        for (int64_t block = 0; block < blocks_; ++block) {
          micro_.multiply_panels(kStepTiles, dy + block * panel_numbers + k * kPanelColumns,
                                 x + panel * panel_numbers + k * kPanelColumns,
                                 sums + (panel * blocks_ + block) * BlockFloats(), add || k > 0);
        }
      }
    }
  }

  void Store(const float* sums, int64_t panel, int64_t block, float* dweights) const {
    const int64_t first_out = block * micro_.block_rows, first_in = panel * kPanelColumns;
    const int64_t outs = std::min(micro_.block_rows, out_channels_ - first_out);
    const int64_t ins = std::min(kPanelColumns, in_channels_ - first_in);
    alignas(64) float taps[kWinogradTaps * kPanelColumns];
    for (int64_t out = 0; out < outs; ++out) {
      simd::BestLoops().winograd_taps(
          kPanelColumns, sums + (panel * blocks_ + block) * BlockFloats() + out * kPanelColumns,
          ProductFloats(), taps);
      float* to = dweights + ((first_out + out) * in_channels_ + first_in) * kWinogradTaps;
      for (int64_t in = 0; in < ins; ++in) {
        for (int64_t tap = 0; tap < kWinogradTaps; ++tap) {
          to[in * kWinogradTaps + tap] = taps[tap * kPanelColumns + in];
        }
      }
    }
  }

  const int64_t in_channels_, out_channels_;
  const TileGrid grid_;
  const Micro& micro_;
  const TileTransform x_tiles_, dy_tiles_;
  const int64_t blocks_, panels_;
  const int64_t chunk_;  // tiles at a time; whole steps
};

}  // namespace

std::unique_ptr<graph::Kernel> CreateWinogradWeights(const KernelRequest& request) {
  const ConvShape s(request.inputs[1].shape, request.inputs[2].shape, *request.attributes);
  if (request.inputs[0].dtype == DType::kBF16) {
    return std::make_unique<WinogradWeightKernel<uint16_t>>(s);
  }
  return std::make_unique<WinogradWeightKernel<float>>(s);
}

}  // namespace lepton::kernels::conv
