#include "runtime/kernels/cpu/conv/shifted_weight_kernel.h"

#include <algorithm>
#include <memory>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/planes.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/conv/shifted_shape.h"
#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::conv {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kMostParts = 4;  // of the images, dweights of each summed apart
constexpr int64_t kPartsBytes = 1 << 24;

// dweights [out, in, taps]: for each tap x [in, positions] times dy^T [positions, out], positions
// that are of no pixel with a dy of 0.
class ShiftedWeightKernel final : public graph::Kernel {
 public:
  explicit ShiftedWeightKernel(const ConvShape& s)
      : s_(s),
        micro_(gemm::Bf16Micro()),
        read_h_(IsOnePixel(s) ? s.window.h.stride : 1),
        read_w_(IsOnePixel(s) ? s.window.w.stride : 1),
        planes_(read_h_ > 1 ? TapLine{s.out_h, s.out_h, {0}}
                            : TapLine::Forward(s.window.h, s.in_h, s.out_h),
                read_w_ > 1 ? TapLine{s.out_w, s.out_w, {0}}
                            : TapLine::Forward(s.window.w, s.in_w, s.out_w)),
        taps_(s.window.h.extent * s.window.w.extent),
        panels_(s.out_channels / kPanelColumns),
        rows_(taps_ * s.in_channels),
        blocks_(CeilDiv(rows_, micro_.block_rows)),
        whole_(s.in_channels % micro_.block_rows == 0),
        lines_(std::clamp<int64_t>(
            kStripBytes / ((s.in_channels + s.out_channels) * planes_.width() * 2), 1, s.out_h)),
        inner_(RoundUp(planes_.Positions(lines_), micro_.step)),
        x_pitch_(planes_.Pitch(inner_, sizeof(uint16_t))),
        parts_(std::clamp<int64_t>(
            std::min(s.images, kPartsBytes / (PartFloats() * int64_t{sizeof(float)})), 1,
            kMostParts)) {}

  // Sums of each part of the images: [panels][blocks][32, 32].
  size_t workspace_bytes() const override { return parts_ * PartFloats() * sizeof(float); }

  void Run(const KernelContext& context) override {
    const auto* dy = context.input(0).as<uint16_t>();
    const auto* x = context.input(1).as<uint16_t>();
    auto* sums = static_cast<float*>(context.workspace());
    const int64_t groups = std::min(panels_, CeilDiv(2 * ThreadPool::Compute().threads(), parts_));
    const int64_t group = CeilDiv(panels_, groups);
    ComputeLoop(parts_ * CeilDiv(panels_, group), 1, [&](int64_t begin, int64_t end) {
      const ConvScope scope(micro_);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % parts_, panel = i / parts_ * group;
        Part(x, dy, part, panel, std::min(group, panels_ - panel),
             sums + part * PartFloats() + panel * PanelFloats());
      }
    });
    float* dweights = context.output(0).as<float>();
    ComputeLoop(panels_ * blocks_, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) Store(sums, i / blocks_, i % blocks_, dweights);
    });
  }

 private:
  int64_t BlockFloats() const { return micro_.block_rows * kPanelColumns; }
  int64_t PanelFloats() const { return blocks_ * BlockFloats(); }
  int64_t PartFloats() const { return panels_ * PanelFloats(); }

  // The images of a part, `count` panels of output channels from `panel` on.
  void Part(const uint16_t* x, const uint16_t* dy, int64_t part, int64_t panel, int64_t count,
            float* sums) const {
    const int64_t first = s_.images * part / parts_, end = s_.images * (part + 1) / parts_;
    auto* planes = reinterpret_cast<uint16_t*>(ThreadMemory<0>(s_.in_channels * x_pitch_ * 2));
    const int64_t columns = count * kPanelColumns;
    auto* spread = reinterpret_cast<uint16_t*>(ThreadMemory<1>(columns * inner_ * 2));
    char* packed = ThreadMemory<2>(columns * inner_ * micro_.element);
    for (int64_t image = first; image < end; ++image) {
      for (int64_t line = 0; line < s_.out_h; line += lines_) {
        const int64_t lines = std::min(lines_, s_.out_h - line);
        FillX(x + image * s_.x_elements(), line, lines, planes);
        SpreadDy(dy + image * s_.y_elements() + panel * kPanelColumns * s_.out_h * s_.out_w, line,
                 lines, columns, spread);
        micro_.pack_panels({spread, {DType::kBF16, 1, inner_}, 0, columns, inner_, inner_}, packed);
        Strip(planes, packed, count, image > first || line > 0, sums);
      }
    }
  }

  void FillX(const uint16_t* x, int64_t first, int64_t lines, uint16_t* planes) const {
    for (int64_t channel = 0; channel < s_.in_channels; ++channel) {
      const uint16_t* from = x + channel * s_.in_h * s_.in_w + planes_.skip();
      planes_.Fill(first, lines, x_pitch_, planes + channel * x_pitch_,
                   [&](int64_t line, uint16_t* to) {
                     const uint16_t* at = from + line * read_h_ * s_.in_w;
                     if (read_w_ == 1) {
                       std::memcpy(to, at, planes_.columns() * 2);
                     } else {
                       for (int64_t i = 0; i < planes_.columns(); ++i) to[i] = at[i * read_w_];
                     }
                   });
    }
  }

  // Lines of pixels to the positions of planes_; the rest of inner_ is 0.
  void SpreadDy(const uint16_t* dy, int64_t first, int64_t lines, int64_t channels,
                uint16_t* to) const {
    const int64_t gap = planes_.width() - s_.out_w;
    for (int64_t channel = 0; channel < channels; ++channel, to += inner_) {
      const uint16_t* from = dy + (channel * s_.out_h + first) * s_.out_w;
      uint16_t* at = to;
      for (int64_t line = 0; line < lines; ++line, from += s_.out_w) {
        std::memcpy(at, from, 2 * s_.out_w);
        at += s_.out_w;
        const int64_t zeros = line + 1 < lines ? gap : to + inner_ - at;
        std::memset(at, 0, 2 * zeros);
        at += zeros;
      }
    }
  }

  // sums [panels][taps * in channels, in blocks] (+)= one strip.
  void Strip(const uint16_t* planes, const char* packed, int64_t count, bool add,
             float* sums) const {
    const int64_t height = micro_.block_rows;
    auto* copies = reinterpret_cast<uint16_t*>(ThreadMemory<3>(height * inner_ * 2));
    char* left = ThreadMemory<4>(height * inner_ * micro_.element);
    for (int64_t block = 0; block < blocks_; ++block) {
      const uint16_t* rows = whole_ ? Seen(planes, block * height) : copies;
      const int64_t pitch = whole_ ? x_pitch_ : inner_;
      if (!whole_) CopyRows(planes, block * height, copies);
      if (micro_.multiply_rows == nullptr) {
        micro_.pack_blocks({rows, {DType::kBF16, pitch, 1}, 0, height, inner_, inner_}, left);
      }
      for (int64_t panel = 0; panel < count; ++panel) {
        const char* right = packed + panel * kPanelColumns * inner_ * micro_.element;
        float* c = sums + panel * PanelFloats() + block * BlockFloats();
        if (micro_.multiply_rows != nullptr) {
          micro_.multiply_rows(inner_, rows, pitch, right, c, add);
        } else {
          micro_.multiply(height, inner_, left, right, c, add);
        }
      }
    }
  }

  // What a tap sees of a channel, by the row of sums.
  const uint16_t* Seen(const uint16_t* planes, int64_t row) const {
    return planes + row % s_.in_channels * x_pitch_ + planes_.shifts()[row / s_.in_channels];
  }

  void CopyRows(const uint16_t* planes, int64_t first, uint16_t* to) const {
    for (int64_t row = first; row < first + micro_.block_rows; ++row, to += inner_) {
      if (row < rows_) {
        std::memcpy(to, Seen(planes, row), inner_ * 2);
      } else {
        std::memset(to, 0, inner_ * 2);
      }
    }
  }

  // The sum of all parts of a block [taps * in channels] x [out channels], in the order of parts.
  void Store(const float* sums, int64_t panel, int64_t block, float* dweights) const {
    const float* from = sums + panel * PanelFloats() + block * BlockFloats();
    for (int64_t i = 0; i < micro_.block_rows; ++i) {
      const int64_t row = block * micro_.block_rows + i;
      if (row >= rows_) return;
      const int64_t in = row % s_.in_channels, tap = row / s_.in_channels;
      for (int64_t j = 0; j < kPanelColumns; ++j) {
        float sum = from[i * kPanelColumns + j];
        for (int64_t part = 1; part < parts_; ++part) {
          sum += from[part * PartFloats() + i * kPanelColumns + j];
        }
        const int64_t out = panel * kPanelColumns + j;
        dweights[(out * s_.in_channels + in) * taps_ + tap] = sum;
      }
    }
  }

  const ConvShape s_;
  const Micro& micro_;
  const int64_t read_h_, read_w_;  // from pixel to pixel of x, for windows of 1 x 1; else 1
  const Planes planes_;
  const int64_t taps_, panels_, rows_, blocks_;
  const bool whole_;     // channels make whole blocks
  const int64_t lines_;  // of an image at a time
  const int64_t inner_;  // their positions
  const int64_t x_pitch_, parts_;
};

bool CanShiftWeights(const KernelRequest& request) {
  const ConvShape s(request.inputs[1].shape, request.inputs[2].shape, *request.attributes);
  // Of windows of 1 x 1 whole images go without a border: where they are as long as a step, they
  // may be narrow, too.
  const bool whole = IsOnePixel(s) && s.out_h * s.out_w % 32 == 0;
  return HasPixels(s) && HasSmallBorder(s) && (whole || (HasUnitStrides(s) && s.out_w >= 16)) &&
         (s.in_channels % kBlockRows == 0 || TakesRows(s, s.in_channels)) &&
         s.out_channels % kPanelColumns == 0;
}

std::unique_ptr<graph::Kernel> CreateShiftedWeights(const KernelRequest& request) {
  return std::make_unique<ShiftedWeightKernel>(
      ConvShape(request.inputs[1].shape, request.inputs[2].shape, *request.attributes));
}

}  // namespace

graph::KernelEntry ShiftedWeightKernelEntry() {
  return {"conv2d_weight_grad", DType::kBF16, "shifted", &CanShiftWeights, &CreateShiftedWeights};
}

}  // namespace lepton::kernels::conv
