#include "runtime/kernels/cpu/conv/conv_kernel.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/conv_rows.h"
#include "runtime/kernels/cpu/conv/pixel_target.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/conv/unfolded_product.h"
#include "runtime/kernels/cpu/conv/weight_rows.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kMostBlockRows = 32;
constexpr int64_t kPixelChunk = 512;  // weights' gradient: pixels at a time
constexpr int64_t kPartFloats = 1 << 18;

// bf16 [images, channels, pixels] to [images, pixels, channels].
void ChannelsLast(const Micro& micro, const void* from, int64_t images, int64_t channels,
                  int64_t pixels, uint16_t* to) {
  constexpr int64_t kPixels = 64;
  const int64_t parts = CeilDiv(pixels, kPixels);
  const int64_t grain = (1 << 15) / (kPixels * channels) + 1;
  ComputeLoop(images * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / parts * channels * pixels, first = i % parts * kPixels;
      micro.pack_rows({static_cast<const uint16_t*>(from) + image,
                       {DType::kBF16, 1, pixels},
                       first,
                       std::min(kPixels, pixels - first),
                       channels,
                       RoundUp(channels, micro.step)},
                      to + image + first * channels, channels);
    }
  });
}

// y from x and the weights, or dx from dy and the weights with their taps in reverse: phase by
// phase of the stride, as each has pixels that meet the same taps, at stride 1.
class PixelKernel final : public graph::Kernel {
 public:
  PixelKernel(const KernelRequest& request, const ConvShape& s, bool forward)
      : images_(s.images),
        frozen_(!request.frozen.empty() && request.frozen[1].value != graph::kNoValue),
        micro_(gemm::Bf16Micro()),
        in_channels_(forward ? s.in_channels : s.out_channels),
        out_channels_(forward ? s.out_channels : s.in_channels),
        in_pixels_(forward ? s.in_h * s.in_w : s.out_h * s.out_w),
        out_pixels_(forward ? s.out_h * s.out_w : s.in_h * s.in_w),
        weights_(forward, s.window.h.extent * s.window.w.extent, in_channels_, out_channels_),
        follower_(request) {
    MakePhases(s, forward);
    if (!frozen_) return;
    const std::string layout = std::string("conv ") + (forward ? "forward " : "backward ") +
                               s.WindowText() + " " +
                               std::to_string(std::min(s.window.h.stride, s.in_h)) + " " +
                               std::to_string(std::min(s.window.w.stride, s.in_w)) + " " +
                               std::to_string(packed_bytes_) + " " + std::to_string(out_channels_);
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(packed_bytes_)})
                : request.packs->Get(request.frozen[1].value, layout, packed_bytes_);
  }

  // The images with their channels last, and the packed weights where they are not kept.
  size_t workspace_bytes() const override { return ImageBytes() + (frozen_ ? 0 : packed_bytes_); }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    PackWeights(context.input(1), pack_->data.as<char>());
  }

  void Run(const KernelContext& context) override {
    auto* images = static_cast<uint16_t*>(context.workspace());
    ChannelsLast(micro_, context.input(0).data, images_, in_channels_, in_pixels_, images);
    char* packed =
        frozen_ ? pack_->data.as<char>() : static_cast<char*>(context.workspace()) + ImageBytes();
    if (!frozen_) PackWeights(context.input(1), packed);
    const PixelTarget y = follower_.Target(context);
    if (has_gaps_) Zero(y);
    for (const Phase& phase : phases_) {
      phase.product.Run(
          images, packed + phase.weights, images_ * phase.rows.pixels(),
          [&](float* c, int64_t first, int64_t count) { Store(phase, c, first, count, y); });
    }
  }

 private:
  struct Phase {
    Rows rows;
    UnfoldedProduct<uint16_t> product;
    std::vector<int64_t> taps;    // numbers in a window
    int64_t weights;              // where its packed weights begin, in bytes
    std::vector<int32_t> places;  // of its pixels in y's plane; none: one after the other
  };

  void MakePhases(const ConvShape& s, bool forward) {
    const ops::Window& w = s.window;
    if (forward) {
      AddPhase(Axis::Forward(w.h, s.in_h, s.out_h), Axis::Forward(w.w, s.in_w, s.out_w),
               std::vector<int64_t>(w.h.extent * w.w.extent), {});
      std::iota(phases_[0].taps.begin(), phases_[0].taps.end(), 0);
      return;
    }
    for (int64_t h = 0; h < std::min(w.h.stride, s.in_h); ++h) {
      for (int64_t v = 0; v < std::min(w.w.stride, s.in_w); ++v) {
        std::vector<int64_t> rows, columns, taps;
        const TapLine down = TapLine::Backward(w.h, s.in_h, s.out_h, h, rows);
        const TapLine across = TapLine::Backward(w.w, s.in_w, s.out_w, v, columns);
        for (const int64_t row : rows) {
          for (const int64_t column : columns) taps.push_back(row * w.w.extent + column);
        }
        if (taps.empty()) {
          has_gaps_ = true;
          continue;
        }
        std::vector<int32_t> places;
        for (int64_t y = h; y < s.in_h && w.h.stride * w.w.stride > 1; y += w.h.stride) {
          for (int64_t x = v; x < s.in_w; x += w.w.stride) {
            places.push_back(static_cast<int32_t>(y * s.in_w + x));
          }
        }
        AddPhase(Axis::Of(down), Axis::Of(across), std::move(taps), std::move(places));
      }
    }
  }

  void AddPhase(const Axis& h, const Axis& w, std::vector<int64_t> taps,
                std::vector<int32_t> places) {
    const Rows rows(h, w, in_channels_);
    phases_.push_back({rows, UnfoldedProduct<uint16_t>(micro_, rows, out_channels_),
                       std::move(taps), static_cast<int64_t>(packed_bytes_), std::move(places)});
    packed_bytes_ += phases_.back().product.packed_bytes();
  }

  size_t ImageBytes() const { return RoundUp(images_ * in_pixels_ * in_channels_ * 2, 64); }

  // The right sides [taps * in channels, out channels], by way of a matrix of each panel's columns
  // whose inner axis is contiguous.
  void PackWeights(const TensorView& weights, char* packed) const {
    ComputeLoop(CeilDiv(out_channels_, kPanelColumns), 1, [&](int64_t begin, int64_t end) {
      const int64_t length = weights_.length();
      auto* rows = reinterpret_cast<uint16_t*>(ThreadMemory<0>(kPanelColumns * length * 2));
      auto* some = reinterpret_cast<uint16_t*>(ThreadMemory<1>(kPanelColumns * length * 2));
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t column = panel * kPanelColumns;
        const int64_t columns = std::min(kPanelColumns, out_channels_ - column);
        weights_.Take(weights, column, columns, rows);
        for (const Phase& phase : phases_) {
          const int64_t inner = phase.rows.columns();
          for (int64_t row = 0; row < columns; ++row) {
            for (size_t i = 0; i < phase.taps.size(); ++i) {
              std::memcpy(some + row * inner + static_cast<int64_t>(i) * in_channels_,
                          rows + row * length + phase.taps[i] * in_channels_, in_channels_ * 2);
            }
          }
          micro_.pack_panels(
              {some, {DType::kBF16, 1, inner}, 0, columns, inner, phase.product.inner()},
              packed + phase.weights + panel * phase.product.panel_bytes());
        }
      }
    });
  }

  void Zero(const PixelTarget& y) const {
    const int64_t count = images_ * out_channels_ * out_pixels_;
    if (y.wide != nullptr) std::fill_n(y.wide, count, 0.0f);
    if (y.narrow != nullptr) std::fill_n(y.narrow, count, uint16_t{0});
  }

  // A block's panels to [images, channels, pixels]; a block may go over several images.
  void Store(const Phase& phase, float* c, int64_t first, int64_t count,
             const PixelTarget& y) const {
    ForImagesAndPanels(c, micro_.block_rows, first, count, phase.rows.pixels(), out_channels_,
                       [&](const float* sums, int64_t run, int64_t channels, int64_t image,
                           int64_t pixel, int64_t channel) {
                         const PixelTarget to = y + (image * out_channels_ + channel) * out_pixels_;
                         if (phase.places.empty()) {
                           StoreTurned(micro_, sums, run, channels, out_pixels_, to + pixel);
                         } else {
                           Scatter(sums, run, channels, phase.places.data() + pixel, to);
                         }
                       });
  }

  // c [count, channels], at most a block, to these places of each channel.
  void Scatter(const float* c, int64_t count, int64_t channels, const int32_t* places,
               const PixelTarget& y) const {
    float turned[kPanelColumns * kMostBlockRows];
    micro_.turn(count, channels, c, turned, kMostBlockRows);
    const auto scatter = [&](const auto* from, auto* to) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        for (int64_t i = 0; i < count; ++i) {
          to[channel * out_pixels_ + places[i]] = from[channel * kMostBlockRows + i];
        }
      }
    };
    if (y.wide != nullptr) scatter(turned, y.wide);
    if (y.narrow == nullptr) return;
    uint16_t halves[kPanelColumns * kMostBlockRows];
    simd::BestLoops().to_bf16_rows(channels, count, turned, kMostBlockRows, halves, kMostBlockRows);
    scatter(halves, y.narrow);
  }

  const int64_t images_;
  const bool frozen_;
  const Micro& micro_;
  const int64_t in_channels_, out_channels_, in_pixels_, out_pixels_;
  const WeightRows weights_;
  const PixelFollower follower_;
  std::vector<Phase> phases_;
  bool has_gaps_ = false;  // pixels that no tap meets
  size_t packed_bytes_ = 0;
  std::shared_ptr<graph::Pack> pack_;
};

// dweights [out, taps * in] = dy^T [out, pixels] * unfolded x [pixels, taps * in].
class WeightKernel final : public graph::Kernel {
 public:
  explicit WeightKernel(const ConvShape& s)
      : s_(s),
        micro_(gemm::Bf16Micro()),
        taps_(s.window.h.extent * s.window.w.extent),
        rows_(Axis::Forward(s.window.h, s.in_h, s.out_h),
              Axis::Forward(s.window.w, s.in_w, s.out_w), s.in_channels),
        pixels_(s.images * rows_.pixels()),
        chunks_(CeilDiv(pixels_, kPixelChunk)),
        blocks_(CeilDiv(s.out_channels, micro_.block_rows)),
        panels_(CeilDiv(rows_.columns(), kPanelColumns)) {}

  // x and dy with their channels last, and dy packed chunk by chunk.
  size_t workspace_bytes() const override { return XBytes() + DyBytes() + chunks_ * LeftBytes(); }

  void Run(const KernelContext& context) override {
    char* workspace = static_cast<char*>(context.workspace());
    auto* x = reinterpret_cast<uint16_t*>(workspace);
    auto* dy = reinterpret_cast<uint16_t*>(workspace + XBytes());
    char* left = workspace + XBytes() + DyBytes();
    ChannelsLast(micro_, context.input(1).data, s_.images, s_.in_channels, s_.in_h * s_.in_w, x);
    ChannelsLast(micro_, context.input(0).data, s_.images, s_.out_channels, rows_.pixels(), dy);
    ComputeLoop(chunks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        micro_.pack_blocks({dy + i * kPixelChunk * s_.out_channels,
                            {DType::kBF16, 1, s_.out_channels},
                            0,
                            s_.out_channels,
                            Pixels(i),
                            Padded(i)},
                           left + i * LeftBytes());
      }
    });
    // As much of dweights at a time as stays in L2.
    const int64_t most =
        std::max<int64_t>(1, kPartFloats / (blocks_ * micro_.block_rows * kPanelColumns));
    const int64_t wanted = 2 * ThreadPool::Compute().threads();
    const int64_t group = std::min(most, CeilDiv(panels_, wanted));
    float* dweights = context.output(0).as<float>();
    ComputeLoop(CeilDiv(panels_, group), 1, [&](int64_t begin, int64_t end) {
      const ConvScope scope(micro_);
      for (int64_t i = begin; i < end; ++i) {
        Panels(x, left, i * group, std::min(group, panels_ - i * group), dweights);
      }
    });
  }

 private:
  size_t XBytes() const { return RoundUp(s_.images * s_.x_elements() * 2, 64); }
  size_t DyBytes() const { return RoundUp(s_.images * s_.y_elements() * 2, 64); }
  int64_t LeftBytes() const { return blocks_ * micro_.block_rows * kPixelChunk * micro_.element; }
  int64_t Pixels(int64_t chunk) const {
    return std::min(kPixelChunk, pixels_ - chunk * kPixelChunk);
  }
  int64_t Padded(int64_t chunk) const { return RoundUp(Pixels(chunk), micro_.step); }

  // Columns of the unfolded x: `count` panels from `first` on, all pixels.
  void Panels(const uint16_t* x, const char* left, int64_t first, int64_t count,
              float* dweights) const {
    const int64_t begin = first * kPanelColumns, columns = count * kPanelColumns;
    const int64_t block_floats = micro_.block_rows * kPanelColumns;
    auto* unfolded = reinterpret_cast<uint16_t*>(ThreadMemory<1>(kPixelChunk * columns * 2));
    char* right = ThreadMemory<2>(kPixelChunk * columns * micro_.element);
    auto* c = reinterpret_cast<float*>(ThreadMemory<3>(blocks_ * count * block_floats * 4));
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      const int64_t inner = Padded(chunk);
      rows_.Copy(x, chunk * kPixelChunk, Pixels(chunk), begin, begin + columns, unfolded, columns);
      micro_.pack_panels({unfolded, {DType::kBF16, columns, 1}, 0, columns, Pixels(chunk), inner},
                         right);
      for (int64_t panel = 0; panel < count; ++panel) {
        for (int64_t block = 0; block < blocks_; ++block) {
          const char* block_at =
              left + chunk * LeftBytes() + block * micro_.block_rows * inner * micro_.element;
          micro_.multiply(std::min(micro_.block_rows, s_.out_channels - block * micro_.block_rows),
                          inner, block_at, right + panel * kPanelColumns * inner * micro_.element,
                          c + (panel * blocks_ + block) * block_floats, chunk > 0);
        }
      }
    }
    for (int64_t i = 0; i < count * blocks_; ++i) {
      Store(c + i * block_floats, i % blocks_ * micro_.block_rows,
            begin + i / blocks_ * kPanelColumns, dweights);
    }
  }

  // [out, in, taps].
  void Store(const float* c, int64_t first_out, int64_t first_column, float* dweights) const {
    const int64_t outs = std::min(micro_.block_rows, s_.out_channels - first_out);
    const int64_t columns = std::min(kPanelColumns, rows_.columns() - first_column);
    int64_t places[kPanelColumns];
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t column = first_column + j;
      places[j] = column % s_.in_channels * taps_ + column / s_.in_channels;
    }
    for (int64_t i = 0; i < outs; ++i) {
      float* to = dweights + (first_out + i) * rows_.columns();
      for (int64_t j = 0; j < columns; ++j) to[places[j]] = c[i * kPanelColumns + j];
    }
  }

  const ConvShape s_;
  const Micro& micro_;
  const int64_t taps_;
  const Rows rows_;
  const int64_t pixels_, chunks_, blocks_, panels_;
};

ConvShape ShapeOfRequest(const KernelRequest& request) {
  const auto& in = request.inputs;
  if (request.op == "conv2d") return {in[0].shape, in[1].shape, *request.attributes};
  if (request.op == "conv2d_input_grad") return {in[2].shape, in[1].shape, *request.attributes};
  return {in[1].shape, in[2].shape, *request.attributes};
}

bool CanConvolve(const KernelRequest& request) {
  return PixelFollower::CanRun(request) && request.attributes->Int("groups", 1) == 1 &&
         request.inputs[0].shape.elements() > 0 && request.outputs[0].shape.elements() > 0;
}

std::unique_ptr<graph::Kernel> CreatePixels(const KernelRequest& request) {
  return std::make_unique<PixelKernel>(request, ShapeOfRequest(request), request.op == "conv2d");
}

std::unique_ptr<graph::Kernel> CreateWeights(const KernelRequest& request) {
  return std::make_unique<WeightKernel>(ShapeOfRequest(request));
}

}  // namespace

std::vector<graph::KernelEntry> ConvKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    graph::KernelEntry entry{op, DType::kBF16, "gemm", &CanConvolve, &CreatePixels};
    entry.packs = 1;
    entry.fuses = true;
    entries.push_back(entry);
  }
  entries.push_back({"conv2d_weight_grad", DType::kBF16, "gemm", &CanConvolve, &CreateWeights});
  return entries;
}

}  // namespace lepton::kernels::conv
