#include "runtime/kernels/cpu/conv/shifted_kernel.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/pixel_target.h"
#include "runtime/kernels/cpu/conv/planes.h"
#include "runtime/kernels/cpu/conv/scratch.h"
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

// Output pixels (y * step_h + first_h, x * step_w + first_w): all of y; of dx those that the same
// taps meet.
struct Phase {
  int64_t first_h, first_w;
  Planes planes;
  std::vector<int64_t> taps;  // numbers in a window
  int64_t weights;            // where its packed weights begin, in bytes
};

// y from x and the weights, or dx from dy and the weights with their taps in reverse.
class ShiftedPixelKernel final : public graph::Kernel {
 public:
  ShiftedPixelKernel(const KernelRequest& request, const ConvShape& s, bool forward)
      : images_(s.images),
        in_channels_(forward ? s.in_channels : s.out_channels),
        out_channels_(forward ? s.out_channels : s.in_channels),
        in_w_(forward ? s.in_w : s.out_w),
        in_pixels_(forward ? s.in_h * s.in_w : s.out_h * s.out_w),
        out_w_(forward ? s.out_w : s.in_w),
        out_pixels_(forward ? s.out_h * s.out_w : s.in_h * s.in_w),
        step_h_(forward ? 1 : s.window.h.stride),
        step_w_(forward ? 1 : s.window.w.stride),
        frozen_(!request.frozen.empty() && request.frozen[1].value != graph::kNoValue),
        micro_(gemm::Bf16Micro()),
        weights_(forward, s.window.h.extent * s.window.w.extent, in_channels_, out_channels_),
        whole_(in_channels_ % kStepChannels == 0),
        follower_(request) {
    MakePhases(s, forward);
    by_line_ = step_h_ == 1 && step_w_ == 1 && out_w_ % kTileColumns == 0;
    if (!frozen_) return;
    const std::string layout = std::string("shifted conv ") + (forward ? "forward " : "backward ") +
                               std::to_string(step_h_) + " " + std::to_string(step_w_) + " " +
                               std::to_string(packed_bytes_) + " " + std::to_string(out_channels_);
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(packed_bytes_)})
                : request.packs->Get(request.frozen[1].value, layout, packed_bytes_);
  }

  size_t workspace_bytes() const override { return frozen_ ? 0 : packed_bytes_; }

  void Prepare(const KernelContext& context) override {
    if (!frozen_) return;
    if (pack_->version == context.version() && context.version() != 0) return;
    PackWeights(context.input(1), pack_->data.as<char>());
    pack_->version = context.version();
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
    ComputeLoop(images_ * tasks, 1, [&](int64_t begin, int64_t end) {
      const ConvScope scope(micro_);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / tasks, first = i % tasks * lines;
        for (const Phase& phase : phases_) {
          const int64_t count = std::min(lines, phase.planes.out_h() - first);
          if (count <= 0) continue;
          Lines(phase, x + image * in_channels_ * in_pixels_, packed + phase.weights, first, count,
                y + image * out_channels_ * out_pixels_);
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
          phases_.push_back({h, v,
                             Planes(TapLine::Forward(w.h, s.in_h, s.out_h),
                                    TapLine::Forward(w.w, s.in_w, s.out_w)),
                             taps, packed_bytes_});
        } else {
          Planes planes(TapLine::Backward(w.h, s.in_h, s.out_h, h, rows),
                        TapLine::Backward(w.w, s.in_w, s.out_w, v, columns));
          for (const int64_t row : rows) {
            for (const int64_t column : columns) taps.push_back(row * w.w.extent + column);
          }
          phases_.push_back({h, v, std::move(planes), taps, packed_bytes_});
        }
        packed_bytes_ += out_channels_ * Inner(phases_.back()) * 2;
        const int64_t channels = whole_ ? in_channels_ : Inner(phases_.back());
        const int64_t line_bytes = channels / 2 * phases_.back().planes.width() * 4;
        most_lines_ =
            std::clamp<int64_t>(kStripBytes / std::max<int64_t>(1, line_bytes), 1, most_lines_);
      }
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

  // Lines [first, first + lines) of a phase of an image, all channels.
  void Lines(const Phase& phase, const uint16_t* x, const char* packed, int64_t first,
             int64_t lines, PixelTarget y) const {
    const Planes& planes = phase.planes;
    const int64_t positions = RoundUp(planes.Positions(lines), kTileColumns);
    const int64_t pitch = planes.Pitch(positions, sizeof(uint32_t));
    const int64_t inner = Inner(phase);
    const int64_t channels = whole_ ? in_channels_ : inner;
    auto* pairs = reinterpret_cast<uint32_t*>(ThreadMemory<1>(channels / 2 * pitch * 4));
    whole_ ? PairChannels(planes, x, first, lines, pitch, pairs)
           : PairRows(phase, x, first, lines, positions, pitch, pairs);
    constexpr int64_t kNoShift = 0;
    ShiftedProduct product{
        .images = pairs,
        .pitch = pitch,
        .shifts = whole_ ? planes.shifts().data() : &kNoShift,
        .taps = whole_ ? static_cast<int64_t>(planes.shifts().size()) : std::min<int64_t>(1, inner),
        .steps = channels / kStepChannels};
    const int64_t across = planes.out_w() / kTileColumns;
    const int64_t tiles = by_line_ ? lines * across : positions / kTileColumns;
    const auto start = [&](int64_t tile) {
      return by_line_ ? tile / across * planes.width() + tile % across * kTileColumns
                      : tile * kTileColumns;
    };
    y = y + ((first * step_h_ + phase.first_h) * out_w_ + phase.first_w);
    // Tiles of one line go to f32 by themselves.
    const bool direct = by_line_ && y.narrow == nullptr;
    alignas(64) float block[kBlockRows * kPairColumns];
    product.c_pitch = direct ? out_pixels_ : kPairColumns;
    for (int64_t tile = 0; tile < tiles; tile += 2) {
      const bool two = tile + 1 < tiles;
      product.positions[0] = start(tile);
      product.positions[1] = start(two ? tile + 1 : tile);
      for (int64_t row = 0; row < out_channels_; row += kBlockRows) {
        product.blocks = packed + row * inner * 2;
        const PixelTarget to = y + row * out_pixels_;
        product.c[0] = direct ? to.wide + tile * kTileColumns : block;
        product.c[1] = product.c[0] + kTileColumns;
        micro_.multiply_shifted(product, two ? 2 : 1);
        if (direct) continue;
        if (by_line_) {
          StoreLine(block, two ? kPairColumns : kTileColumns, to + tile * kTileColumns);
        } else {
          StorePair(planes, product.positions, two, lines, block, to);
        }
      }
    }
  }

  // Tiles that lie side by side in y, too.
  void StoreLine(const float* block, int64_t columns, const PixelTarget& y) const {
    const simd::Loops& loops = simd::BestLoops();
    if (y.wide != nullptr) {
      loops.copy_rows(kBlockRows, columns, block, kPairColumns, y.wide, out_pixels_);
    }
    if (y.narrow != nullptr) {
      loops.to_bf16_rows(kBlockRows, columns, block, kPairColumns, y.narrow, out_pixels_);
    }
  }

  void StorePair(const Planes& planes, const int64_t (&positions)[2], bool two, int64_t lines,
                 const float* block, const PixelTarget& y) const {
    uint16_t halves[kBlockRows * kPairColumns];
    if (y.narrow != nullptr) {
      simd::BestLoops().to_bf16(kBlockRows * kPairColumns, block, halves);
    }
    for (int tile = 0; tile < (two ? 2 : 1); ++tile) {
      const int64_t at = tile * kTileColumns;
      if (y.wide != nullptr) StorePixels(planes, positions[tile], lines, block + at, y.wide);
      if (y.narrow != nullptr) StorePixels(planes, positions[tile], lines, halves + at, y.narrow);
    }
  }

  void PairChannels(const Planes& planes, const uint16_t* x, int64_t first, int64_t lines,
                    int64_t pitch, uint32_t* pairs) const {
    const simd::Loops& loops = simd::BestLoops();
    for (int64_t pair = 0; pair < in_channels_ / 2; ++pair) {
      const uint16_t* even = x + 2 * pair * in_pixels_ + planes.skip();
      planes.Fill(first, lines, pitch, pairs + pair * pitch, [&](int64_t line, uint32_t* to) {
        const uint16_t* from = even + line * in_w_;
        loops.interleave(planes.columns(), from, from + in_pixels_, to);
      });
    }
  }

  // With channels that fill no step: of each tap and channel what it sees of all positions, as if
  // that were a channel.
  void PairRows(const Phase& phase, const uint16_t* x, int64_t first, int64_t lines,
                int64_t positions, int64_t pairs_pitch, uint32_t* pairs) const {
    const simd::Loops& loops = simd::BestLoops();
    const Planes& planes = phase.planes;
    const int64_t pitch = planes.Pitch(positions, sizeof(uint16_t));
    auto* images = reinterpret_cast<uint16_t*>(ThreadMemory<2>((in_channels_ + 1) * pitch * 2));
    for (int64_t channel = 0; channel < in_channels_; ++channel) {
      const uint16_t* from = x + channel * in_pixels_ + planes.skip();
      planes.Fill(first, lines, pitch, images + channel * pitch, [&](int64_t line, uint16_t* to) {
        std::memcpy(to, from + line * in_w_, planes.columns() * 2);
      });
    }
    uint16_t* const zeros = images + in_channels_ * pitch;
    std::memset(zeros, 0, pitch * 2);
    const auto seen = [&](int64_t row) {
      return row < Rows(phase)
                 ? images + row % in_channels_ * pitch + planes.shifts()[row / in_channels_]
                 : zeros;
    };
    for (int64_t row = 0; row < Inner(phase); row += 2) {
      loops.interleave(positions, seen(row), seen(row + 1), pairs + row / 2 * pairs_pitch);
    }
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

  const int64_t images_, in_channels_, out_channels_, in_w_, in_pixels_, out_w_, out_pixels_;
  const int64_t step_h_, step_w_;  // from pixel to pixel of a phase
  const bool frozen_;
  const Micro& micro_;
  const WeightRows weights_;
  const bool whole_;  // channels make whole steps
  const PixelFollower follower_;
  std::vector<Phase> phases_;
  bool by_line_;  // a tile of pixels is of one line, and goes to where it belongs by itself
  int64_t packed_bytes_ = 0;
  int64_t most_lines_ = std::numeric_limits<int64_t>::max();  // at a time
  std::shared_ptr<graph::Pack> pack_;
};

// With lines that are short against the border, unfolding is cheaper.
bool CanShiftPixels(const KernelRequest& request) {
  const bool forward = request.op == "conv2d";
  const Shape& x = request.inputs[forward ? 0 : 2].shape;
  const ConvShape s(x, request.inputs[1].shape, *request.attributes);
  if (gemm::Bf16Micro().multiply_shifted == nullptr || !PixelFollower::CanRun(request) ||
      !HasPixels(s) || (forward && !HasUnitStrides(s)))
    return false;
  const int64_t in = forward ? s.in_channels : s.out_channels;
  const int64_t out = forward ? s.out_channels : s.in_channels;
  // Unfolded, dx of a stride is mostly multiplied with zeros.
  const bool wide = forward || HasUnitStrides(s) ? (forward ? s.out_w : s.in_w) >= 8
                                                 : s.in_w >= 4 * s.window.w.stride;
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
