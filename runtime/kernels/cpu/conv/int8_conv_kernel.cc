#include "runtime/kernels/cpu/conv/int8_conv_kernel.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/unfolded_product.h"
#include "runtime/kernels/cpu/gemm/int8_scale.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {
namespace {

using gemm::Int8Scale;
using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kFour = 4;  // channels of a word

class Int8ConvKernel final : public graph::Kernel {
 public:
  Int8ConvKernel(const KernelRequest& request, const ConvShape& s)
      : s_(s),
        frozen_(!request.frozen.empty() && request.frozen[1].value != graph::kNoValue),
        micro_(gemm::Int8Micro()),
        taps_(s.window.h.extent * s.window.w.extent),
        pixels_(s.in_h * s.in_w),
        words_(CeilDiv(s.in_channels, kFour)),
        rows_(Axis::Forward(s.window.h, s.in_h, s.out_h),
              Axis::Forward(s.window.w, s.in_w, s.out_w), words_ * kFour),
        product_(micro_, rows_, s.out_channels),
        follower_(request) {
    if (!frozen_) return;
    const std::string layout =
        "conv int8 " + std::to_string(product_.inner()) + " " + std::to_string(s.out_channels);
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(RightBytes())})
                : request.packs->Get(request.frozen[1].value, layout, RightBytes());
  }

  // The quantised images, their channels' magnitudes and their scales, and the right side where it
  // is not frozen.
  size_t workspace_bytes() const override {
    return ImageBytes() + MagnitudeBytes() + ScaleBytes() + (frozen_ ? 0 : RightBytes());
  }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    PackWeights(context.input(1).as<float>(), pack_->data.as<char>());
  }

  void Run(const KernelContext& context) override {
    char* at = static_cast<char*>(context.workspace());
    auto* const images = reinterpret_cast<int8_t*>(at);
    auto* const magnitudes = reinterpret_cast<float*>(at += ImageBytes());
    auto* const scales = reinterpret_cast<Int8Scale*>(at += MagnitudeBytes());
    char* const right = frozen_ ? pack_->data.as<char>() : at + ScaleBytes();
    if (!frozen_) PackWeights(context.input(1).as<float>(), right);
    Measure(context.input(0), magnitudes, scales);
    Quantize(context.input(0), scales, images);
    const auto* const weight_scales = reinterpret_cast<const float*>(right);
    const PixelTarget y = follower_.Target(context);
    product_.Run(images, right + WeightScaleBytes(), s_.images * rows_.pixels(),
                 [&](float* c, int64_t first, int64_t count) {
                   Store(c, first, count, scales, weight_scales, y);
                 });
  }

 private:
  size_t ImageBytes() const { return RoundUp(s_.images * pixels_ * words_ * kFour, 64); }
  size_t MagnitudeBytes() const { return RoundUp(s_.images * s_.in_channels * 4, 64); }
  size_t ScaleBytes() const { return RoundUp(s_.images * sizeof(Int8Scale), 64); }
  // Scales of whole panels, so that a block needs no special end.
  size_t WeightScaleBytes() const { return product_.panels() * kPanelColumns * sizeof(float); }
  size_t RightBytes() const { return WeightScaleBytes() + product_.packed_bytes(); }

  // `count` rows of `length` numbers, `pitch` apart, as f32; bf16 in `memory` of the thread.
  template <int kSlot>
  static const float* AsF32(const TensorView& x, int64_t first, int64_t count, int64_t pitch,
                            int64_t length, int64_t& f32_pitch) {
    f32_pitch = pitch;
    if (x.type.dtype == DType::kF32) return x.as<float>() + first;
    auto* wide = reinterpret_cast<float*>(ThreadMemory<kSlot>(count * length * 4));
    simd::BestLoops().to_f32_rows(count, length, x.as<uint16_t>() + first, pitch, wide, length);
    f32_pitch = length;
    return wide;
  }

  // The scale of each image.
  void Measure(const TensorView& x, float* magnitudes, Int8Scale* scales) const {
    constexpr int64_t kGrain = 1 << 14;
    ComputeLoop(s_.images * s_.in_channels, kGrain / pixels_ + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t pitch;
        const float* values = AsF32<0>(x, i * pixels_, 1, pixels_, pixels_, pitch);
        magnitudes[i] = simd::BestLoops().largest(pixels_, values);
      }
    });
    for (int64_t image = 0; image < s_.images; ++image) {
      const float* of_image = magnitudes + image * s_.in_channels;
      uint32_t top = 0;  // a NaN's bits are larger than all others'
      for (int64_t i = 0; i < s_.in_channels; ++i) {
        top = std::max(top, std::bit_cast<uint32_t>(of_image[i]));
      }
      scales[image] = Int8Scale(std::bit_cast<float>(top));
    }
  }

  // [images, channels, pixels] to [images, pixels, channels], four of these a word.
  void Quantize(const TensorView& x, const Int8Scale* scales, int8_t* images) const {
    const int64_t parts = CeilDiv(pixels_, kPanelColumns);
    const int64_t grain = (1 << 15) / (kPanelColumns * words_ * kFour) + 1;
    ComputeLoop(s_.images * parts, grain, [&](int64_t begin, int64_t end) {
      auto* words = reinterpret_cast<float*>(ThreadMemory<1>(words_ * kPanelColumns * 4));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / parts, first = i % parts * kPanelColumns;
        const int64_t count = std::min(kPanelColumns, pixels_ - first);
        int64_t pitch;
        const float* values =
            AsF32<0>(x, image * s_.x_elements() + first, s_.in_channels, pixels_, count, pitch);
        for (int64_t word = 0; word < words_; ++word) {
          const int64_t channel = word * kFour;
          simd::BestLoops().quantize_fours(
              count, std::min(kFour, s_.in_channels - channel), pitch, scales[image].inverse,
              values + channel * pitch, reinterpret_cast<uint32_t*>(words + word * kPanelColumns));
        }
        auto* to = reinterpret_cast<float*>(images) + (image * pixels_ + first) * words_;
        gemm::F32Micro().turn(words_, count, words, to, words_);
      }
    });
  }

  // Panel by panel, each output channel's weights tap by tap; behind the scales of all.
  void PackWeights(const float* weights, char* right) const {
    float* const scales = reinterpret_cast<float*>(right);
    std::memset(right, 0, WeightScaleBytes());
    ComputeLoop(product_.panels(), 1, [&](int64_t begin, int64_t end) {
      const int64_t length = taps_ * s_.in_channels, padded = rows_.columns();
      auto* row = reinterpret_cast<int8_t*>(ThreadMemory<0>(length));
      auto* panel = reinterpret_cast<int8_t*>(ThreadMemory<1>(kPanelColumns * padded));
      std::memset(panel, 0, kPanelColumns * padded);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t first = p * kPanelColumns;
        const int64_t count = std::min(kPanelColumns, s_.out_channels - first);
        for (int64_t j = 0; j < count; ++j) {
          scales[first + j] =
              simd::BestLoops().quantize_row(length, weights + (first + j) * length, row);
          int8_t* to = panel + j * padded;
          for (int64_t in = 0; in < s_.in_channels; ++in) {
            for (int64_t tap = 0; tap < taps_; ++tap) {
              to[tap * words_ * kFour + in] = row[in * taps_ + tap];
            }
          }
        }
        micro_.pack_panels({panel, {DType::kI8, 1, padded}, 0, count, padded, product_.inner()},
                           right + WeightScaleBytes() + p * product_.panel_bytes());
      }
    });
  }

  // Makes numbers of the sums, and puts them where they belong.
  void Store(float* c, int64_t first, int64_t count, const Int8Scale* scales,
             const float* weight_scales, const PixelTarget& y) const {
    const int64_t pixels = rows_.pixels();
    ForImagesAndPanels(c, micro_.block_rows, first, count, pixels, s_.out_channels,
                       [&](float* sums, int64_t run, int64_t channels, int64_t image, int64_t pixel,
                           int64_t channel) {
                         float row_scales[kPanelColumns];
                         std::fill_n(row_scales, run, scales[image].scale);
                         simd::BestLoops().from_int32_rows(run, kPanelColumns, row_scales,
                                                           weight_scales + channel, sums);
                         StoreTurned(gemm::F32Micro(), sums, run, channels, pixels,
                                     y + ((image * s_.out_channels + channel) * pixels + pixel));
                       });
  }

  const ConvShape s_;
  const bool frozen_;
  const Micro& micro_;
  const int64_t taps_, pixels_, words_;
  const Rows rows_;
  const UnfoldedProduct<int8_t> product_;
  const PixelFollower follower_;
  std::shared_ptr<graph::Pack> pack_;
};

bool CanRun(const KernelRequest& request) {
  return PixelFollower::CanRun(request) && request.attributes->Int("groups", 1) == 1 &&
         request.inputs[0].shape.elements() > 0 && request.outputs[0].shape.elements() > 0;
}

std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
  return std::make_unique<Int8ConvKernel>(
      request, ConvShape(request.inputs[0].shape, request.inputs[1].shape, *request.attributes));
}

}  // namespace

std::vector<graph::KernelEntry> Int8ConvKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    graph::KernelEntry entry{"conv2d_int8", dtype, "gemm", &CanRun, &Create};
    entry.packs = 1;
    entry.fuses = true;
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace lepton::kernels::conv
