#include "runtime/kernels/cpu/conv/shifted_kernel.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/pixel_target.h"
#include "runtime/kernels/cpu/conv/planes.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/conv/shifted_images.h"
#include "runtime/kernels/cpu/conv/shifted_shape.h"
#include "runtime/kernels/cpu/conv/shifted_weight_kernel.h"
#include "runtime/kernels/cpu/conv/weight_rows.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using gemm::ShiftedProduct;
using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kTileColumns = 16;
constexpr int64_t kPairColumns = 2 * kTileColumns;
constexpr int64_t kStepChannels = 32;  // that go in
constexpr int64_t kLeastLines = 4;     // of an image, for which another thread is worth waking

// y from x and the weights, or dx from dy and the weights with their taps in reverse.
class ShiftedPixelKernel final : public graph::Kernel {
 public:
  ShiftedPixelKernel(const KernelRequest& request, const ConvShape& s, bool forward)
      : images_(s.images),
        in_channels_(forward ? s.in_channels : s.out_channels),
        out_channels_(forward ? s.out_channels : s.in_channels),
        in_pixels_(forward ? s.in_h * s.in_w : s.out_h * s.out_w),
        out_w_(forward ? s.out_w : s.in_w),
        out_pixels_(forward ? s.out_h * s.out_w : s.in_h * s.in_w),
        step_h_(forward ? 1 : s.window.h.stride),
        step_w_(forward ? 1 : s.window.w.stride),
        x_{in_channels_, in_pixels_, forward ? s.in_w : s.out_w, forward ? s.window.h.stride : 1,
           forward ? s.window.w.stride : 1},
        frozen_(!request.frozen.empty() && request.frozen[1].value != graph::kNoValue),
        micro_(gemm::Bf16Micro()),
        weights_(forward, s.window.h.extent * s.window.w.extent, in_channels_, out_channels_),
        whole_(in_channels_ % kStepChannels == 0),
        follower_(request) {
    by_line_ = step_h_ == 1 && step_w_ == 1 && out_w_ % kTileColumns == 0;
    MakePhases(s, forward);
    if (!frozen_) return;
    const std::string layout = std::string("shifted conv ") + (forward ? "forward " : "backward ") +
                               s.WindowText() + " " + std::to_string(packed_bytes_) + " " +
                               std::to_string(out_channels_);
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(packed_bytes_)})
                : request.packs->Get(request.frozen[1].value, layout, packed_bytes_);
  }

  size_t workspace_bytes() const override { return frozen_ ? 0 : packed_bytes_; }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    PackWeights(context.input(1), pack_->data.as<char>());
  }

  void Run(const KernelContext& context) override {
    char* packed = frozen_ ? pack_->data.as<char>() : static_cast<char*>(context.workspace());
    if (!frozen_) PackWeights(context.input(1), packed);
    const auto* x = context.input(0).as<uint16_t>();
    const PixelTarget y = follower_.Target(context);
    // Whole images, or with large or few of them some lines of each.
    const int64_t height = phases_.front().planes.out_h();
    const int64_t wanted = 2 * ThreadPool::Compute().threads();
    const int64_t parts =
        std::clamp<int64_t>(CeilDiv(wanted, images_), 1, CeilDiv(height, kLeastLines));
    const int64_t lines = std::min(CeilDiv(height, parts), most_lines_);
    const int64_t tasks = CeilDiv(height, lines);
    const int64_t together = tasks > 1 ? 1 : std::clamp<int64_t>(images_ / wanted, 1, most_images_);
    ComputeLoop(CeilDiv(images_, together) * tasks, 1, [&](int64_t begin, int64_t end) {
      const ConvScope scope(micro_);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / tasks * together, first = i % tasks * lines;
        const int64_t images = std::min(together, images_ - image);
        const PixelTarget of_image = y + image * out_channels_ * out_pixels_;
        if (has_gaps_) Zero(images, first * step_h_, lines * step_h_, of_image);
        for (const Phase& phase : phases_) {
          const int64_t count = std::min(lines, phase.planes.out_h() - first);
          if (count <= 0 || phase.taps.empty()) continue;
          Multiply(phase, {images, first, count}, x + image * in_channels_ * in_pixels_,
                   packed + phase.weights, of_image);
        }
      }
    });
  }

 private:
  void MakePhases(const ConvShape& s, bool forward) {
    const ops::Window& w = s.window;
    for (int64_t h = 0; h < step_h_; ++h) {
      for (int64_t v = 0; v < step_w_; ++v) {
        std::vector<int64_t> rows, columns, taps;
        if (forward) {
          for (int64_t tap = 0; tap < w.h.extent * w.w.extent; ++tap) taps.push_back(tap);
          // The pixels that a window of 1 x 1 steps on are all that there is of x.
          AddPhase(h, v,
                   x_.read_h > 1 ? TapLine{s.out_h, s.out_h, {0}}
                                 : TapLine::Forward(w.h, s.in_h, s.out_h),
                   x_.read_w > 1 ? TapLine{s.out_w, s.out_w, {0}}
                                 : TapLine::Forward(w.w, s.in_w, s.out_w),
                   std::move(taps));
        } else {
          const TapLine down = TapLine::Backward(w.h, s.in_h, s.out_h, h, rows);
          const TapLine across = TapLine::Backward(w.w, s.in_w, s.out_w, v, columns);
          for (const int64_t row : rows) {
            for (const int64_t column : columns) taps.push_back(row * w.w.extent + column);
          }
          AddPhase(h, v, down, across, std::move(taps));
        }
      }
    }
  }

  void AddPhase(int64_t h, int64_t v, const TapLine& down, const TapLine& across,
                std::vector<int64_t> taps) {
    Planes planes(down, across);
    std::vector<int64_t> copies;
    const bool wasteful = planes.width() * 10 > across.out * 11;
    if (whole_ && !by_line_ && wasteful && !across.offsets.empty()) {
      copies = across.offsets;
      planes = Planes(down, {across.out, across.out, {0}});
    }
    phases_.push_back({h, v, std::move(planes), std::move(copies), std::move(taps), packed_bytes_});
    const Phase& phase = phases_.back();
    if (phase.taps.empty()) {
      has_gaps_ = true;
      return;  // nothing is read for it: it sets no limits
    }
    packed_bytes_ += out_channels_ * Inner(phase) * 2;
    const int64_t channels = whole_ ? in_channels_ * phase.Copies() : Inner(phase);
    const int64_t line_bytes = std::max<int64_t>(1, channels / 2 * phase.planes.width() * 4);
    most_lines_ = std::clamp<int64_t>(kStripBytes / line_bytes, 1, most_lines_);
    const int64_t height = phase.planes.out_h();
    // Tiles of several images, each of one.
    const bool apart = !phase.copies.empty() && height * across.out % kTileColumns == 0;
    const int64_t span_bytes = std::max<int64_t>(1, phase.planes.Span(height) * channels / 2 * 4);
    most_images_ =
        apart ? std::clamp<int64_t>(kStripBytes / span_bytes, 1, most_images_) : int64_t{1};
  }

  // Lines of all channels.
  void Zero(int64_t images, int64_t first, int64_t lines, const PixelTarget& y) const {
    const int64_t count = std::min(lines, out_pixels_ / out_w_ - first) * out_w_;
    for (int64_t channel = 0; channel < images * out_channels_; ++channel) {
      const PixelTarget at = y + (channel * out_pixels_ + first * out_w_);
      if (at.wide != nullptr) std::fill_n(at.wide, count, 0.0f);
      if (at.narrow != nullptr) std::fill_n(at.narrow, count, uint16_t{0});
    }
  }

  int64_t Rows(const Phase& phase) const {
    return static_cast<int64_t>(phase.taps.size()) * in_channels_;
  }
  int64_t Inner(const Phase& phase) const { return RoundUp(Rows(phase), kStepChannels); }

  // Of each phase blocks of 32 rows, all of their inner axis.
  void PackWeights(const TensorView& weights, char* packed) const {
    ComputeLoop(out_channels_ / kBlockRows, 1, [&](int64_t begin, int64_t end) {
      const int64_t length = weights_.length();
      auto* rows = reinterpret_cast<uint16_t*>(ThreadMemory<0>(kBlockRows * length * 2));
      auto* some = reinterpret_cast<uint16_t*>(ThreadMemory<1>(kBlockRows * length * 2));
      for (int64_t block = begin; block < end; ++block) {
        weights_.Take(weights, block * kBlockRows, kBlockRows, rows);
        for (const Phase& phase : phases_) {
          const int64_t count = Rows(phase), inner = Inner(phase);
          if (count == 0) continue;
          for (int64_t row = 0; row < kBlockRows; ++row) {
            for (size_t i = 0; i < phase.taps.size(); ++i) {
              std::memcpy(some + row * count + static_cast<int64_t>(i) * in_channels_,
                          rows + row * length + phase.taps[i] * in_channels_, in_channels_ * 2);
            }
          }
          micro_.pack_blocks({some, {DType::kBF16, count, 1}, 0, kBlockRows, count, inner},
                             packed + phase.weights + block * kBlockRows * inner * 2);
        }
      }
    });
  }

  // Some lines of a phase, all channels.
  void Multiply(const Phase& phase, const Part& part, const uint16_t* x, const char* packed,
                PixelTarget y) const {
    const Planes& planes = phase.planes;
    const int64_t of_image = RoundUp(planes.Positions(part.lines), kTileColumns);
    const int64_t span = planes.Span(part.lines);
    const int64_t positions = (part.images - 1) * span + of_image;
    const int64_t pitch = planes.Pitch(positions, sizeof(uint32_t));
    const int64_t inner = Inner(phase);
    const int64_t channels = whole_ ? in_channels_ * phase.Copies() : inner;
    auto* pairs = reinterpret_cast<uint32_t*>(ThreadMemory<1>(channels / 2 * pitch * 4));
    whole_ ? x_.PairChannels(phase, part, x, pitch, pairs)
           : x_.PairRows(phase, part, x, Rows(phase), inner, positions, pitch, pairs);
    constexpr int64_t kNoShift = 0;
    ShiftedProduct product{
        .images = pairs,
        .pitch = pitch,
        .shifts = whole_ ? planes.shifts().data() : &kNoShift,
        .taps = whole_ ? static_cast<int64_t>(planes.shifts().size()) : std::min<int64_t>(1, inner),
        .steps = channels / kStepChannels};
    const int64_t across = planes.out_w() / kTileColumns;
    const int64_t tiles = by_line_ ? part.lines * across : of_image / kTileColumns;
    const auto start = [&](int64_t tile) {
      if (by_line_) return tile / across * planes.width() + tile % across * kTileColumns;
      return tile / tiles * span + tile % tiles * kTileColumns;
    };
    y = y + ((part.first * step_h_ + phase.first_h) * out_w_ + phase.first_w);
    // Tiles whose pixels lie side by side go to f32 by themselves.
    const bool together = by_line_ || (!phase.copies.empty() && step_h_ == 1 && step_w_ == 1 &&
                                       part.lines * planes.out_w() % kTileColumns == 0);
    const bool direct = together && y.narrow == nullptr;
    alignas(64) float block[kBlockRows * kPairColumns];
    product.c_pitch = direct ? out_pixels_ : kPairColumns;
    for (int64_t tile = 0; tile < part.images * tiles; tile += 2) {
      const int64_t count = std::min<int64_t>(2, part.images * tiles - tile);
      PixelTarget to[2];  // the pixels of each tile, or its image
      int64_t places[2];  // in its image
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t number = i < count ? tile + i : tile;
        product.positions[i] = start(number);
        places[i] = number % tiles * kTileColumns;
        to[i] = y + (number / tiles * out_channels_ * out_pixels_ + (together ? places[i] : 0));
      }
      for (int64_t row = 0; row < out_channels_; row += kBlockRows) {
        product.blocks = packed + row * inner * 2;
        for (int64_t i = 0; i < 2; ++i) {
          product.c[i] = direct ? to[i].wide + row * out_pixels_ : block + i * kTileColumns;
        }
        micro_.multiply_shifted(product, static_cast<int>(count));
        if (direct) continue;
        for (int64_t i = 0; i < count; ++i) {
          const PixelTarget target = to[i] + row * out_pixels_;
          if (together) {
            StoreLine(block + i * kTileColumns, target);
          } else {
            StoreTile(planes, places[i], part.lines, block + i * kTileColumns, target);
          }
        }
      }
    }
  }

  // A tile whose pixels lie side by side in y, too.
  void StoreLine(const float* tile, const PixelTarget& y) const {
    const simd::Loops& loops = simd::BestLoops();
    if (y.wide != nullptr) {
      loops.copy_rows(kBlockRows, kTileColumns, tile, kPairColumns, y.wide, out_pixels_);
    }
    if (y.narrow != nullptr) {
      loops.to_bf16_rows(kBlockRows, kTileColumns, tile, kPairColumns, y.narrow, out_pixels_);
    }
  }

  void StoreTile(const Planes& planes, int64_t position, int64_t lines, const float* tile,
                 const PixelTarget& y) const {
    if (y.wide != nullptr) StorePixels(planes, position, lines, tile, y.wide);
    if (y.narrow == nullptr) return;
    uint16_t halves[kBlockRows * kPairColumns];
    simd::BestLoops().to_bf16_rows(kBlockRows, kTileColumns, tile, kPairColumns, halves,
                                   kPairColumns);
    StorePixels(planes, position, lines, halves, y.narrow);
  }

  // Those columns of a tile that are pixels, of 32 channels; y is at the phase's first pixel.
  template <typename Number>
  void StorePixels(const Planes& planes, int64_t position, int64_t lines, const Number* tile,
                   Number* y) const {
    for (int64_t column = 0; column < kTileColumns;) {
      const int64_t line = (position + column) / planes.width();
      const int64_t x = (position + column) % planes.width();
      if (line >= lines) return;
      const int64_t run = std::min(kTileColumns - column, planes.out_w() - x);
      for (int64_t row = 0; row < kBlockRows; ++row) {
        const Number* from = tile + row * kPairColumns + column;
        Number* to = y + row * out_pixels_ + line * step_h_ * out_w_ + x * step_w_;
        for (int64_t i = 0; i < run; ++i) to[i * step_w_] = from[i];
      }
      column += planes.width() - x;
    }
  }

  const int64_t images_, in_channels_, out_channels_, in_pixels_, out_w_, out_pixels_;
  const int64_t step_h_, step_w_;  // from pixel to pixel of a phase
  const ShiftedImages x_;
  const bool frozen_;
  const Micro& micro_;
  const WeightRows weights_;
  const bool whole_;  // channels make whole steps
  const PixelFollower follower_;
  std::vector<Phase> phases_;
  bool by_line_;  // a tile of pixels is of one line, and goes to where it belongs by itself
  bool has_gaps_ = false;  // pixels that no tap meets
  int64_t packed_bytes_ = 0;
  int64_t most_lines_ = std::numeric_limits<int64_t>::max();   // at a time
  int64_t most_images_ = std::numeric_limits<int64_t>::max();  // of which all lines are taken
  std::shared_ptr<graph::Pack> pack_;
};

// With lines that are short against the border, unfolding is cheaper.
bool CanShiftPixels(const KernelRequest& request) {
  const bool forward = request.op == "conv2d";
  const Shape& x = request.inputs[forward ? 0 : 2].shape;
  const ConvShape s(x, request.inputs[1].shape, *request.attributes);
  if (gemm::Bf16Micro().multiply_shifted == nullptr || !PixelFollower::CanRun(request) ||
      !HasPixels(s) || !HasSmallBorder(s))
    return false;
  const int64_t in = forward ? s.in_channels : s.out_channels;
  const int64_t out = forward ? s.out_channels : s.in_channels;
  if (forward && !HasUnitStrides(s) && !(IsOnePixel(s) && in % kStepChannels == 0)) return false;
  const int64_t height = forward ? s.out_h : s.in_h, width = forward ? s.out_w : s.in_w;
  // VDPBF16PS loads both sides again for every few channels, and here from far apart.
  const bool far = CurrentBf16Sums() == Bf16Sums::kPairs && !IsOnePixel(s);
  const bool wide = forward || HasUnitStrides(s)
                        ? width >= 8 || (width >= 4 && height * width % kTileColumns == 0 &&
                                         in % kStepChannels == 0)
                        : width >= (far ? 8 : 4) * s.window.w.stride;
  return wide && (in % kStepChannels == 0 || TakesRows(s, in)) && out % kBlockRows == 0;
}

std::unique_ptr<graph::Kernel> CreateShiftedPixels(const KernelRequest& request) {
  const bool forward = request.op == "conv2d";
  const TensorType& x = request.inputs[forward ? 0 : 2];
  return std::make_unique<ShiftedPixelKernel>(
      request, ConvShape(x.shape, request.inputs[1].shape, *request.attributes), forward);
}

}  // namespace

std::vector<graph::KernelEntry> ShiftedConvKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    graph::KernelEntry entry{op, DType::kBF16, "shifted", &CanShiftPixels, &CreateShiftedPixels};
    entry.packs = 1;
    entry.fuses = true;
    entries.push_back(entry);
  }
  entries.push_back(ShiftedWeightKernelEntry());
  return entries;
}

}  // namespace lepton::kernels::conv
