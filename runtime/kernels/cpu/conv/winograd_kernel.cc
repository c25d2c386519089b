#include "runtime/kernels/cpu/conv/winograd_kernel.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/pixel_target.h"
#include "runtime/kernels/cpu/conv/plane_program.h"
#include "runtime/kernels/cpu/conv/scratch.h"
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

constexpr int64_t kLanes = 16;            // of the loops
constexpr int64_t kLine = 64;             // of a cache, bytes
constexpr int64_t kGroupBytes = 1 << 19;  // of transformed tiles at a time: they stay in L2
constexpr int64_t kLeastChannels = 16;    // below, transforming costs what multiplying saves
constexpr int64_t kWeightsAtOnce = 32;    // channels that go in, of a block's weights
static_assert(kSpanTiles == kPanelColumns);

class WinogradKernel final : public graph::Kernel {
 public:
  WinogradKernel(const KernelRequest& request, const ConvShape& s, bool forward)
      : forward_(forward),
        in_channels_(forward ? s.in_channels : s.out_channels),
        out_channels_(forward ? s.out_channels : s.in_channels),
        out_h_(forward ? s.out_h : s.in_h),
        out_w_(forward ? s.out_w : s.in_w),
        grid_{s.images, CeilDiv(out_h_, 2), CeilDiv(out_w_, 2)},
        tiles_(grid_, in_channels_, forward ? s.in_h : s.out_h, forward ? s.in_w : s.out_w,
               forward ? s.window.h.before : 2 - s.window.h.before,
               forward ? s.window.w.before : 2 - s.window.w.before, TileTransform::Of::kInputs),
        pairs_(request.inputs[0].dtype == DType::kBF16),
        panels_(CeilDiv(grid_.tiles(), kPanelColumns)),
        micro_(pairs_ ? gemm::Bf16Micro() : gemm::F32Micro()),
        blocks_(CeilDiv(out_channels_, micro_.block_rows)),
        frozen_(!request.frozen.empty() && request.frozen[1].value != graph::kNoValue),
        follower_(request) {
    if (!PixelFollower::CanRun(request)) program_.emplace(request);
    if (!frozen_) return;
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(WeightBytes())})
                : request.packs->Get(
                      request.frozen[1].value,
                      std::string("winograd ") + micro_.name + (forward ? " forward" : " backward"),
                      WeightBytes());
  }

  size_t workspace_bytes() const override { return frozen_ ? 0 : WeightBytes(); }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    TransformWeights(context.input(1), pack_->data.as<char>());
  }

  void Run(const KernelContext& context) override {
    char* weights = frozen_ ? pack_->data.as<char>() : static_cast<char*>(context.workspace());
    if (!frozen_) TransformWeights(context.input(1), weights);
    const PixelTarget y = program_ ? PixelTarget{} : follower_.Target(context);
    const int64_t fitting = kGroupBytes / PanelBytes();
    const int64_t wanted = CeilDiv(panels_, 2 * ThreadPool::Compute().threads());
    const int64_t group = std::clamp<int64_t>(std::min(fitting, wanted), 1, panels_);
    ComputeLoop(CeilDiv(panels_, group), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Panels(context, weights, i * group, std::min(group, panels_ - i * group), y);
      }
    });
  }

 private:
  // Of one product and block: what the block of weights holds.
  int64_t BlockBytes() const { return micro_.block_rows * in_channels_ * micro_.element; }
  size_t WeightBytes() const { return blocks_ * kProducts * BlockBytes(); }
  // Of one product and panel. The products' beginnings must not all fall into the same ways of a
  // cache, hence one line more than it holds.
  int64_t ProductBytes() const { return in_channels_ * kPanelColumns * micro_.element + kLine; }
  int64_t PanelBytes() const { return kProducts * ProductBytes(); }

  // To [blocks][products][in][rows of a block]; in bf16 to panels (gemm/micro.h).
  void TransformWeights(const TensorView& weights, char* to) const {
    ComputeLoop(blocks_, 1, [&](int64_t begin, int64_t end) {
      auto* taps =
          reinterpret_cast<float*>(ThreadMemory<0>(kWeightsAtOnce * kWinogradTaps * kLanes * 4));
      const int64_t rows = micro_.block_rows;
      for (int64_t block = begin; block < end; ++block) {
        char* const packed = to + block * kProducts * BlockBytes();
        for (int64_t in = 0; in < in_channels_; in += kWeightsAtOnce) {
          const int64_t count = std::min(kWeightsAtOnce, in_channels_ - in);
          for (int64_t first = 0; first < rows; first += kLanes) {
            const int64_t lanes = std::min(kLanes, rows - first);
            const bool turned = TakeTaps(weights, block * rows + first, lanes, in, count, taps);
            if (pairs_) {
              simd::BestLoops().turned_tiles.weights_to_panel(
                  count, turned ? taps + (kWinogradTaps - 1) * kLanes : taps,
                  turned ? -kLanes : kLanes,
                  reinterpret_cast<uint16_t*>(packed) + in * rows + first * kPanelColumns,
                  BlockBytes() / 2);
            } else {
              simd::BestLoops().winograd_weights(
                  count, lanes, rows, taps, reinterpret_cast<float*>(packed) + in * rows + first,
                  in_channels_ * rows);
            }
          }
        }
      }
    });
  }

  // The taps of up to 16 output channels from `out` on and `count` inputs: [count][taps][16].
  // Whether those of each window are left in reverse.
  bool TakeTaps(const TensorView& weights, int64_t out, int64_t lanes, int64_t in, int64_t count,
                float* to) const {
    const auto turn = simd::BestLoops().turned_tiles.channels_of_taps;
    const bool whole = pairs_ && out + kLanes <= out_channels_ && count == kWeightsAtOnce &&
                       weights.type.dtype == DType::kF32;
    if (whole && forward_) {
      static_assert(kWeightsAtOnce * kWinogradTaps % kLanes == 0);
      turn(count * kWinogradTaps, weights.as<float>() + (out * in_channels_ + in) * kWinogradTaps,
           in_channels_ * kWinogradTaps, to);
      return false;
    }
    // Numbers behind the last ones must not be read.
    if (whole && (in + count < in_channels_ || out + kLanes < out_channels_)) {
      for (int64_t i = 0; i < count; ++i) {
        turn(kWinogradTaps, weights.as<float>() + ((in + i) * out_channels_ + out) * kWinogradTaps,
             kWinogradTaps, to + i * kWinogradTaps * kLanes);
      }
      return true;
    }
    for (int64_t row = 0; row < lanes; ++row) TakeTaps(weights, out + row, in, count, to + row);
    return false;
  }

  // The taps of an output channel and `count` inputs; 0 of a channel that is not there.
  void TakeTaps(const TensorView& weights, int64_t out, int64_t in, int64_t count,
                float* to) const {
    if (out >= out_channels_) {
      for (int64_t i = 0; i < count * kWinogradTaps; ++i) to[i * kLanes] = 0;
    } else if (weights.type.dtype == DType::kBF16) {
      TakeTaps(weights.as<uint16_t>(), out, in, count, to);
    } else {
      TakeTaps(weights.as<float>(), out, in, count, to);
    }
  }

  template <typename Number>
  void TakeTaps(const Number* weights, int64_t out, int64_t in, int64_t count, float* to) const {
    if (forward_) {
      const Number* from = weights + (out * in_channels_ + in) * kWinogradTaps;
      for (int64_t i = 0; i < count * kWinogradTaps; ++i) to[i * kLanes] = ToF32(from[i]);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      const Number* from = weights + ((in + i) * out_channels_ + out) * kWinogradTaps;
      for (int64_t tap = 0; tap < kWinogradTaps; ++tap) {
        to[(i * kWinogradTaps + tap) * kLanes] = ToF32(from[kWinogradTaps - 1 - tap]);
      }
    }
  }
  static float ToF32(float number) { return number; }
  static float ToF32(uint16_t number) { return BF16::ToFloat({number}); }

  // `count` panels of tiles, all channels. Of f32 the weights are the left side. Of bf16 the tiles
  // are, as whose rows their channels are computed side by side, and so come out.
  void Panels(const KernelContext& context, const char* weights, int64_t first, int64_t count,
              const PixelTarget& y) const {
    const TensorView& x = context.input(0);
    char* const v = ThreadMemory<1>(count * PanelBytes());
    const int64_t rows = micro_.block_rows;
    auto* c = reinterpret_cast<float*>(ThreadMemory<2>(kProducts * rows * kPanelColumns * 4));
    std::vector<std::vector<TileRun>> runs(count);
    std::vector<TilePixels> pixels;
    for (int64_t panel = 0; panel < count; ++panel) {
      const int64_t tile = (first + panel) * kPanelColumns;
      runs[panel] = grid_.Runs(tile, kPanelColumns);
      char* const to = v + panel * PanelBytes();
      if (pairs_) {
        tiles_.ToBlocks(x.as<uint16_t>(), tile, reinterpret_cast<uint16_t*>(to),
                        ProductBytes() / 2);
        pixels.emplace_back(runs[panel], out_h_, out_w_, out_channels_);
      } else {
        tiles_.Run(x.as<float>(), tile, kPanelColumns, 0, in_channels_,
                   reinterpret_cast<float*>(to), ProductBytes() / 4, kPanelColumns);
      }
    }
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t channels = std::min(rows, out_channels_ - block * rows);
      for (int64_t panel = 0; panel < count; ++panel) {
        if (program_) FetchForProgram(context, pixels[panel], block * rows, channels);
        for (int64_t k = 0; k < kProducts; ++k) {
          const char* const u = weights + (block * kProducts + k) * BlockBytes();
          const char* const tiles = v + panel * PanelBytes() + k * ProductBytes();
          float* const to = c + k * rows * kPanelColumns;
          if (pairs_) {
            micro_.multiply(kSpanTiles, in_channels_, tiles, u, to, false);
          } else {
            micro_.multiply(channels, in_channels_, u, tiles, to, false);
          }
        }
        if (pairs_) {
          StoreTurned(context, c, pixels[panel], block * rows, channels, y);
        } else {
          Store(c, runs[panel], block * rows, channels, y.wide);
        }
      }
    }
  }

  // Of `channels` output channels from `first` on: c [products][tiles][channels].
  void StoreTurned(const KernelContext& context, const float* c, const TilePixels& to,
                   int64_t first, int64_t channels, const PixelTarget& y) const {
    alignas(64) float pixels[4 * kSpanTiles * kPanelColumns];
    const simd::TurnedTileLoops& loops = simd::BestLoops().turned_tiles;
    loops.to_pixels(to.tiles(), c, kSpanTiles * kPanelColumns, to.places(), pixels);
    const int64_t plane = out_h_ * out_w_;
    for (const TilePixels::Stretch& stretch : to.stretches()) {
      const float* const from = pixels + stretch.from * kPanelColumns;
      if (program_) RunProgram(context, stretch, from, first, channels);
      const PixelTarget at = y + (stretch.to + first * plane);
      if (at.wide != nullptr) micro_.turn(stretch.count, channels, from, at.wide, plane);
      if (at.narrow != nullptr) {
        loops.pixels_to_bf16(stretch.count, channels, from, at.narrow, plane);
      }
    }
  }

  void FetchForProgram(const KernelContext& context, const TilePixels& to, int64_t first,
                       int64_t channels) const {
    const int64_t plane = out_h_ * out_w_;
    for (const TilePixels::Stretch& stretch : to.stretches()) {
      program_->Fetch(context, stretch.to / plane + first, channels, stretch.to % plane,
                      stretch.count);
    }
  }

  // pixels [stretch.count][channels].
  void RunProgram(const KernelContext& context, const TilePixels::Stretch& stretch,
                  const float* pixels, int64_t first, int64_t channels) const {
    alignas(64) float turned[PlaneProgram::kPlanes * PlaneProgram::kPixels];
    const int64_t plane = out_h_ * out_w_;
    for (int64_t i = 0; i < stretch.count; i += PlaneProgram::kPixels) {
      const int64_t count = std::min(PlaneProgram::kPixels, stretch.count - i);
      micro_.turn(count, channels, pixels + i * kPanelColumns, turned, count);
      program_->Run(context, stretch.to / plane + first, channels, stretch.to % plane + i, count,
                    turned);
    }
  }

  // Of `channels` output channels from `first` on: c [products][rows of a block][tiles].
  void Store(const float* c, const std::vector<TileRun>& runs, int64_t first, int64_t channels,
             float* y) const {
    constexpr int64_t kPixels = 2 * kPanelColumns;  // of a line
    alignas(64) float lines[2 * kPixels];
    for (int64_t row = 0; row < channels; ++row) {
      simd::BestLoops().winograd_out(kPanelColumns, c + row * kPanelColumns,
                                     micro_.block_rows * kPanelColumns, lines, lines + kPixels);
      for (const TileRun& run : runs) {
        const int64_t to =
            ((run.image * out_channels_ + first + row) * out_h_ + 2 * run.y) * out_w_ + 2 * run.x;
        const int64_t count = std::min(2 * run.count, out_w_ - 2 * run.x);
        const int64_t height = std::min<int64_t>(2, out_h_ - 2 * run.y);
        for (int64_t line = 0; line < height; ++line) {
          CopyFew(lines + line * kPixels + 2 * run.lane, count, y + to + line * out_w_);
        }
      }
    }
  }

  const bool forward_;
  const int64_t in_channels_, out_channels_, out_h_, out_w_;
  const TileGrid grid_;
  const TileTransform tiles_;  // of what goes in
  const bool pairs_;           // bf16, with Bf16Sums::kPairs
  const int64_t panels_;
  const Micro& micro_;
  const int64_t blocks_;
  const bool frozen_;
  const PixelFollower follower_;
  std::optional<PlaneProgram> program_;  // what follows, where that is more than a cast
  std::shared_ptr<graph::Pack> pack_;
};

bool IsForward(const KernelRequest& request) {
  return request.op == "conv2d";
}

ConvShape ShapeOf(const KernelRequest& request) {
  const auto& in = request.inputs;
  if (request.op == "conv2d_weight_grad") return {in[1].shape, in[2].shape, *request.attributes};
  return {in[IsForward(request) ? 0 : 2].shape, in[1].shape, *request.attributes};
}

bool CanRunWinograd(const KernelRequest& request) {
  const ConvShape s = ShapeOf(request);
  const auto fits = [](const ops::WindowAxis& w) {
    return w.extent == 3 && w.stride == 1 && w.dilation == 1 && w.before <= 2 && w.after <= 2;
  };
  return simd::CpuHasAvx2() && s.groups == 1 && s.images > 0 && fits(s.window.h) &&
         fits(s.window.w) && s.in_channels >= kLeastChannels && s.out_channels >= kLeastChannels &&
         std::min(s.out_h, s.out_w) >= 2;
}

// In bf16 where sums go pair by pair: tile units multiply so much faster that the transforms would
// take longer than what they save.
bool CanRunPairs(const KernelRequest& request) {
  const ConvShape s = ShapeOf(request);
  const int64_t in = IsForward(request) ? s.in_channels : s.out_channels;
  return CurrentBf16Sums() == Bf16Sums::kPairs && CanRunWinograd(request) &&
         in % kWeightsAtOnce == 0 &&
         (PixelFollower::CanRun(request) || PlaneProgram::CanRun(request));
}

// With fewer channels packing takes longer than what is saved.
bool CanRunPairsOfTiles(const KernelRequest& request) {
  constexpr int64_t kLeast = 64;
  const ConvShape s = ShapeOf(request);
  return CurrentBf16Sums() == Bf16Sums::kPairs && CanRunWinograd(request) &&
         std::min(s.in_channels, s.out_channels) >= kLeast;
}

std::unique_ptr<graph::Kernel> CreateWinograd(const KernelRequest& request) {
  return std::make_unique<WinogradKernel>(request, ShapeOf(request), IsForward(request));
}

}  // namespace

std::vector<graph::KernelEntry> WinogradKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    graph::KernelEntry entry{op, DType::kF32, "winograd", &CanRunWinograd, &CreateWinograd};
    entry.packs = 1;
    entries.push_back(entry);
    entry = {op, DType::kBF16, "winograd", &CanRunPairs, &CreateWinograd};
    entry.packs = 1;
    entry.fuses = true;
    entries.push_back(entry);
  }
  entries.push_back(
      {"conv2d_weight_grad", DType::kF32, "winograd", &CanRunWinograd, &CreateWinogradWeights});
  entries.push_back({"conv2d_weight_grad", DType::kBF16, "winograd", &CanRunPairsOfTiles,
                     &CreateWinogradWeights});
  return entries;
}

}  // namespace lepton::kernels::conv
