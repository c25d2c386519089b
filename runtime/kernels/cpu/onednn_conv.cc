#include "runtime/kernels/cpu/onednn_conv.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/graph/pack_cache.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv_shape.h"
#include "runtime/kernels/cpu/onednn_engine.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels {
namespace {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

enum class Direction { kForward, kInputGrad, kWeightGrad };

Direction DirectionOf(std::string_view op) {
  if (op == "conv2d") return Direction::kForward;
  return op == "conv2d_input_grad" ? Direction::kInputGrad : Direction::kWeightGrad;
}

ConvShape ShapeOf(const graph::KernelRequest& request) {
  const auto& in = request.inputs;
  switch (DirectionOf(request.op)) {
    case Direction::kForward:
      return {in[0].shape, in[1].shape, *request.attributes};
    case Direction::kInputGrad:
      return {in[2].shape, in[1].shape, *request.attributes};
    case Direction::kWeightGrad:
      break;
  }
  return {in[1].shape, in[2].shape, *request.attributes};
}

dnnl::primitive_attr UserScratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

dnnl::memory At(const Desc& desc, const void* data) {
  // oneDNN takes its inputs, too, through a pointer to mutable memory; it does not write there.
  return dnnl::memory(desc, OnednnEngine(), const_cast<void*>(data));
}

// A change of layout; nothing to do when both are the same.
class Relayout {
 public:
  Relayout(const Desc& from, const Desc& to) : from_(from), to_(to) {
    if (from == to) return;
    const dnnl::reorder::primitive_desc descriptor(OnednnEngine(), from, OnednnEngine(), to,
                                                   UserScratchpad());
    scratchpad_ = descriptor.scratchpad_desc();
    reorder_ = dnnl::reorder(descriptor);
  }
  bool needed() const { return static_cast<bool>(reorder_); }
  size_t bytes() const { return to_.get_size(); }
  void Run(const void* from, void* to) const {
    reorder_.execute(SingleThreadedStream(),
                     {{DNNL_ARG_FROM, At(from_, from)},
                      {DNNL_ARG_TO, At(to_, to)},
                      {DNNL_ARG_SCRATCHPAD, At(scratchpad_, Scratchpad(scratchpad_.get_size()))}});
  }

 private:
  Desc from_, to_, scratchpad_;
  dnnl::reorder reorder_;
};

// The convolution of a fixed number of images in one direction.
struct Part {
  // Nothing when oneDNN cannot, or only by its slow reference.
  static std::optional<Part> Make(const ConvShape& shape, int64_t images, Direction direction);

  dnnl::primitive primitive;
  Desc scratchpad;
  // x, weights and y as in our tensors, and as oneDNN wants them.
  Desc plain_x, plain_weights, plain_y;
  Desc x, weights, y;
};

std::optional<Part> Part::Make(const ConvShape& s, int64_t images, Direction direction) {
  SingleThreadedStream();
  const auto f32 = dnnl::memory::data_type::f32;
  const int64_t kh = s.window.h.extent;
  const int64_t kw = s.window.w.extent;
  const Dims x{images, s.in_channels, s.in_h, s.in_w};
  const Dims y{images, s.out_channels, s.out_h, s.out_w};
  const bool grouped = s.groups > 1;
  const int64_t group_in = s.in_channels / s.groups;
  const Dims weights = grouped ? Dims{s.groups, s.out_channels / s.groups, group_in, kh, kw}
                               : Dims{s.out_channels, group_in, kh, kw};
  const Dims strides{s.window.h.stride, s.window.w.stride};
  const Dims dilations{s.window.h.dilation - 1, s.window.w.dilation - 1};
  const Dims before{s.window.h.before, s.window.w.before};
  // oneDNN wants the padding that the last window uses.
  const auto after = [](const ops::WindowAxis& axis, int64_t in, int64_t out) {
    return (out - 1) * axis.stride + axis.Span() - in - axis.before;
  };
  const Dims behind{after(s.window.h, s.in_h, s.out_h), after(s.window.w, s.in_w, s.out_w)};
  const Desc any_x(x, f32, Tag::any), any_y(y, f32, Tag::any), any_w(weights, f32, Tag::any);
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto attributes = UserScratchpad();
  Part part;
  part.plain_x = Desc(x, f32, Tag::nchw);
  part.plain_y = Desc(y, f32, Tag::nchw);
  part.plain_weights = Desc(weights, f32, grouped ? Tag::goihw : Tag::oihw);
  const auto is_reference = [](const auto& d) {
    return std::string_view(d.impl_info_str()).starts_with("ref");
  };
  try {
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm, any_x, any_w, any_y, strides, dilations,
         before, behind},
        attributes, OnednnEngine());
    if (direction == Direction::kForward) {
      if (is_reference(forward)) return std::nullopt;
      part.primitive = dnnl::convolution_forward(forward);
      part.scratchpad = forward.scratchpad_desc();
      part.x = forward.src_desc();
      part.weights = forward.weights_desc();
      part.y = forward.dst_desc();
    } else if (direction == Direction::kInputGrad) {
      const dnnl::convolution_backward_data::primitive_desc backward(
          {algorithm, any_x, any_w, any_y, strides, dilations, before, behind}, attributes,
          OnednnEngine(), forward);
      if (is_reference(backward)) return std::nullopt;
      part.primitive = dnnl::convolution_backward_data(backward);
      part.scratchpad = backward.scratchpad_desc();
      part.x = backward.diff_src_desc();
      part.weights = backward.weights_desc();
      part.y = backward.diff_dst_desc();
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          {algorithm, any_x, any_w, any_y, strides, dilations, before, behind}, attributes,
          OnednnEngine(), forward);
      if (is_reference(backward)) return std::nullopt;
      part.primitive = dnnl::convolution_backward_weights(backward);
      part.scratchpad = backward.scratchpad_desc();
      part.x = backward.src_desc();
      part.weights = backward.diff_weights_desc();
      part.y = backward.diff_dst_desc();
    }
  } catch (const dnnl::error&) {
    return std::nullopt;
  }
  return part;
}

// A tensor in oneDNN's layout: itself, or a copy in the thread's scratch memory.
const void* Converted(const Relayout& relayout, const void* plain, int slot) {
  if (!relayout.needed()) return plain;
  void* copy = Scratchpad(relayout.bytes(), slot);
  relayout.Run(plain, copy);
  return copy;
}

// y from x, or dx from dy: image by image.
class PerImage final : public graph::Kernel {
 public:
  PerImage(const graph::KernelRequest& request, const ConvShape& shape, Direction direction)
      : shape_(shape),
        forward_(direction == Direction::kForward),
        part_(*Part::Make(shape, 1, direction)),
        pack_weights_(part_.plain_weights, part_.weights),
        convert_in_(forward_ ? part_.plain_x : part_.plain_y, forward_ ? part_.x : part_.y),
        convert_out_(forward_ ? part_.y : part_.x, forward_ ? part_.plain_y : part_.plain_x) {
    const bool frozen = !request.frozen.empty() && request.frozen[1].value != graph::kNoValue &&
                        pack_weights_.needed();
    if (!frozen) return;
    const size_t bytes = pack_weights_.bytes();
    // What oneDNN makes of weights depends on the images too.
    std::string layout = forward_ ? "onednn forward " : "onednn backward ";
    layout += shape.WindowText();
    for (const int64_t extent : {shape.in_h, shape.in_w, shape.out_h, shape.out_w}) {
      layout += " " + std::to_string(extent);
    }
    pack_ = request.packs == nullptr ? std::make_shared<graph::Pack>(graph::Pack{Buffer(bytes)})
                                     : request.packs->Get(request.frozen[1].value, layout, bytes);
  }

  size_t workspace_bytes() const override {
    return pack_weights_.needed() && pack_ == nullptr ? pack_weights_.bytes() : 0;
  }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const graph::KernelContext& context) override {
    pack_weights_.Run(context.input(1).data, pack_->data.data());
  }

  void Run(const graph::KernelContext& context) override {
    const void* weights = context.input(1).data;
    if (pack_ != nullptr) {
      weights = pack_->data.data();
    } else if (pack_weights_.needed()) {
      pack_weights_.Run(weights, context.workspace());
      weights = context.workspace();
    }
    const float* in = context.input(0).as<float>();
    float* out = context.output(0).as<float>();
    const int64_t in_stride = forward_ ? shape_.x_elements() : shape_.y_elements();
    const int64_t out_stride = forward_ ? shape_.y_elements() : shape_.x_elements();
    ComputeLoop(shape_.images, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        RunImage(in + i * in_stride, weights, out + i * out_stride);
      }
    });
  }

 private:
  void RunImage(const float* in, const void* weights, float* out) const {
    const void* source = Converted(convert_in_, in, 1);
    void* target = out;
    const Desc& out_desc = forward_ ? part_.y : part_.x;
    if (convert_out_.needed()) target = Scratchpad(out_desc.get_size(), 2);
    part_.primitive.execute(
        SingleThreadedStream(),
        {{forward_ ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, At(forward_ ? part_.x : part_.y, source)},
         {DNNL_ARG_WEIGHTS, At(part_.weights, weights)},
         {forward_ ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC, At(out_desc, target)},
         {DNNL_ARG_SCRATCHPAD, At(part_.scratchpad, Scratchpad(part_.scratchpad.get_size()))}});
    if (convert_out_.needed()) convert_out_.Run(target, out);
  }

  const ConvShape shape_;
  const bool forward_;
  const Part part_;
  const Relayout pack_weights_, convert_in_, convert_out_;
  std::shared_ptr<graph::Pack> pack_;  // of frozen weights
};

// dweights: a sum over the images, cut into parts by their number alone.
class WeightGrad final : public graph::Kernel {
 public:
  explicit WeightGrad(const ConvShape& shape) : shape_(shape) {
    const int64_t size = PartSize(shape);
    for (int64_t first = 0; first < shape.images; first += size) {
      const int64_t images = std::min(size, shape.images - first);
      parts_.emplace_back(*Part::Make(shape, images, Direction::kWeightGrad), first);
    }
  }

  // The sums of all parts but the first, whose place is the output.
  size_t workspace_bytes() const override { return (parts_.size() - 1) * SumBytes(); }

  // Images in each part but the last.
  static int64_t PartSize(const ConvShape& shape) {
    return (shape.images + kWeightParts - 1) / kWeightParts;
  }

  void Run(const graph::KernelContext& context) override {
    const float* dy = context.input(0).as<float>();
    const float* x = context.input(1).as<float>();
    float* total = context.output(0).as<float>();
    auto* sums = static_cast<float*>(context.workspace());
    const int64_t pitch = static_cast<int64_t>(SumBytes() / sizeof(float));
    ComputeLoop(static_cast<int64_t>(parts_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        RunPart(parts_[i], x, dy, i == 0 ? total : sums + (i - 1) * pitch);
      }
    });
    constexpr int64_t kGrain = 1 << 15;
    ComputeLoop(shape_.weight_elements(), kGrain, [&](int64_t begin, int64_t end) {
      for (size_t part = 1; part < parts_.size(); ++part) {
        const float* sum = sums + (part - 1) * pitch;
        for (int64_t i = begin; i < end; ++i) total[i] += sum[i];
      }
    });
  }

 private:
  struct Placed {
    Placed(Part made, int64_t first_image)
        : part(std::move(made)),
          first(first_image),
          convert_x(part.plain_x, part.x),
          convert_dy(part.plain_y, part.y),
          convert_out(part.weights, part.plain_weights) {}
    Part part;
    int64_t first;
    Relayout convert_x, convert_dy, convert_out;
  };

  size_t SumBytes() const {
    const size_t bytes = parts_[0].part.plain_weights.get_size();
    return (bytes + Buffer::kAlignment - 1) / Buffer::kAlignment * Buffer::kAlignment;
  }

  void RunPart(const Placed& placed, const float* x, const float* dy, void* sum) const {
    const Part& part = placed.part;
    const void* source = Converted(placed.convert_x, x + placed.first * shape_.x_elements(), 1);
    const void* gradient = Converted(placed.convert_dy, dy + placed.first * shape_.y_elements(), 2);
    void* target = sum;
    if (placed.convert_out.needed()) target = Scratchpad(part.weights.get_size(), 3);
    part.primitive.execute(
        SingleThreadedStream(),
        {{DNNL_ARG_SRC, At(part.x, source)},
         {DNNL_ARG_DIFF_DST, At(part.y, gradient)},
         {DNNL_ARG_DIFF_WEIGHTS, At(part.weights, target)},
         {DNNL_ARG_SCRATCHPAD, At(part.scratchpad, Scratchpad(part.scratchpad.get_size()))}});
    if (placed.convert_out.needed()) placed.convert_out.Run(target, sum);
  }

  const ConvShape shape_;
  std::vector<Placed> parts_;
};

}  // namespace

bool CanRunOnednnConv(const graph::KernelRequest& request) {
  const ConvShape shape = ShapeOf(request);
  const Direction direction = DirectionOf(request.op);
  if (direction != Direction::kWeightGrad) return Part::Make(shape, 1, direction).has_value();
  const int64_t size = WeightGrad::PartSize(shape);
  const int64_t last = (shape.images - 1) % size + 1;
  return Part::Make(shape, size, direction).has_value() &&
         Part::Make(shape, last, direction).has_value();
}

std::unique_ptr<graph::Kernel> CreateOnednnConv(const graph::KernelRequest& request) {
  const ConvShape shape = ShapeOf(request);
  const Direction direction = DirectionOf(request.op);
  if (direction == Direction::kWeightGrad) return std::make_unique<WeightGrad>(shape);
  return std::make_unique<PerImage>(request, shape, direction);
}

}  // namespace lepton::kernels
