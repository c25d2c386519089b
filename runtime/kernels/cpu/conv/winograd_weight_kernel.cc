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

constexpr int64_t kTileBytes = 1 << 23;  // of transformed tiles at a time

constexpr int64_t kStepTiles = 256;  // that are packed at a time

// dweights [out, in, 3, 3] by F(3 x 3, 2 x 2): for each of the 16 numbers of a tile, dy's
// [out, tiles] times x's [tiles, in], tiles of all images in their order; then back to the taps.
// Number: float, or of bf16, uint16_t.
template <typename Number>
class WinogradWeightKernel final : public graph::Kernel {
 public:
  explicit WinogradWeightKernel(const ConvShape& s)
      : in_channels_(s.in_channels),
        out_channels_(s.out_channels),
        grid_{s.images, CeilDiv(s.out_h, 2), CeilDiv(s.out_w, 2)},
        x_tiles_(grid_, s.in_channels, s.in_h, s.in_w, s.window.h.before, s.window.w.before,
                 TileTransform::Of::kInputs),
        dy_tiles_(grid_, s.out_channels, s.out_h, s.out_w, 0, 0, TileTransform::Of::kGradients),
        micro_(kDtype == DType::kF32 ? gemm::F32Micro() : gemm::Bf16Micro()),
        blocks_(CeilDiv(s.out_channels, micro_.block_rows)),
        panels_(CeilDiv(s.in_channels, kPanelColumns)),
        chunk_(std::min(RoundUp(grid_.tiles(), kStepTiles),
                        RoundUp(kTileBytes / (kProducts * int64_t{sizeof(Number)} *
                                              (in_channels_ + out_channels_)),
                                kStepTiles))) {}

  // Transformed tiles of a chunk, x's [products][in][tiles] and dy's; sums
  // [products][panels][blocks] of a block times a panel.
  size_t workspace_bytes() const override {
    return (XNumbers() + DyNumbers()) * sizeof(Number) +
           kProducts * ProductFloats() * sizeof(float);
  }

  void Run(const KernelContext& context) override {
    const Number* dy = context.input(0).as<Number>();
    const Number* x = context.input(1).as<Number>();
    auto* sums = static_cast<float*>(context.workspace());
    auto* x_tiles = reinterpret_cast<Number*>(sums + kProducts * ProductFloats());
    Number* dy_tiles = x_tiles + XNumbers();
    for (int64_t tile = 0; tile < grid_.tiles(); tile += chunk_) {
      ComputeLoop(in_channels_ + out_channels_, 1, [&](int64_t begin, int64_t end) {
        const int64_t middle = std::clamp(in_channels_, begin, end);
        x_tiles_.Run(x, tile, chunk_, begin, middle - begin, x_tiles + begin * chunk_,
                     in_channels_ * chunk_, chunk_);
        const int64_t first = middle - in_channels_;
        if (middle == end) return;
        dy_tiles_.Run(dy, tile, chunk_, first, end - middle, dy_tiles + first * chunk_,
                      out_channels_ * chunk_, chunk_);
      });
      ComputeLoop(kProducts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          Multiply(dy_tiles + k * out_channels_ * chunk_, x_tiles + k * in_channels_ * chunk_,
                   tile > 0, sums + k * ProductFloats());
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

  int64_t XNumbers() const { return kProducts * in_channels_ * chunk_; }
  int64_t DyNumbers() const { return kProducts * out_channels_ * chunk_; }
  int64_t BlockFloats() const { return micro_.block_rows * kPanelColumns; }
  int64_t ProductFloats() const { return panels_ * blocks_ * BlockFloats(); }

  // One of the products, a chunk of tiles: sums (+)= dy [out, tiles] * x [in, tiles]^T.
  void Multiply(const Number* dy, const Number* x, bool add, float* sums) const {
    constexpr int64_t kBytes = sizeof(Number);
    const int64_t rows = micro_.block_rows;
    const int64_t step = kStepTiles;
    auto* left = reinterpret_cast<Number*>(ThreadMemory<1>(blocks_ * rows * step * kBytes));
    auto* right =
        reinterpret_cast<Number*>(ThreadMemory<2>(panels_ * kPanelColumns * step * kBytes));
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
  const TileTransform x_tiles_, dy_tiles_;
  const Micro& micro_;
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
