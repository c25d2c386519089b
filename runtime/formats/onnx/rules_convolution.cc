// Convolutions and pooling over any number of spatial axes: windows, then products or reductions.
#include <algorithm>
#include <limits>

#include "runtime/formats/onnx/convolution.h"
#include "runtime/formats/onnx/windows.h"

namespace lepton::onnx {
namespace rules_convolution {

Ints Spatial(const Shape& shape) {
  return {shape.extents().begin() + std::min(2, shape.rank()), shape.extents().end()};
}

// The axes of the kernel in what Unfold gives.
Ints KernelAxes(const Windows& w) {
  Ints axes;
  for (size_t i = 0; i < w.axes(); ++i) axes.push_back(static_cast<int64_t>(2 + w.axes() + i));
  return axes;
}

Id AddChannels(Builder& b, Id y, Id bias) {
  Ints extents(b.rank(y), 1);
  extents[1] = b.shape(bias).elements();
  return b.Add(y, b.Reshape(bias, extents));
}

void Conv(Call& c) {
  const Id x = c.in(0);
  const Id w = c.in(1);
  const Windows windows = ReadWindows(c, c.b.shape(x), Spatial(c.b.shape(w)));
  const Id y = Convolve(c.b, x, w, windows, c.Int("group", 1));
  c.Set(0, c.has(2) ? AddChannels(c.b, y, c.in(2)) : y);
}

// Zeros between the elements of the spatial axes.
Id Spread(Builder& b, Id x, const Ints& strides) {
  for (size_t i = 0; i < strides.size(); ++i) {
    if (strides[i] == 1) continue;
    const int axis = static_cast<int>(i) + 2;
    Ints extents = Extents(b.shape(x));
    Ints split = extents;
    split.insert(split.begin() + axis + 1, 1);
    Ints before(split.size(), 0), after(split.size(), 0);
    after[axis + 1] = strides[i] - 1;
    const Id wide = b.Pad(b.Reshape(x, split), before, after, 0);
    extents[axis] = Product({extents[axis], strides[i]});
    // The zeros after the last element are cut off again.
    x = b.Slice(b.Reshape(wide, extents), axis, 0, 1, extents[axis] - strides[i] + 1);
  }
  return x;
}

// As a convolution of the spread input with the reversed kernel.
void ConvTranspose(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  Id w = c.in(1);
  Windows windows = ReadWindows(c, b.shape(x), Spatial(b.shape(w)));
  const size_t axes = windows.axes();
  const int64_t group = c.Int("group", 1);
  const Ints extra = c.List("output_padding", Ints(axes, 0));
  const Ints wanted = c.List("output_shape");
  const std::string mode = c.Text("auto_pad", "NOTSET");
  if (group < 1 || b.shape(w)[0] % group != 0 || extra.size() != axes ||
      (!wanted.empty() && wanted.size() < axes)) {
    FailInvalid("group, output_padding or output_shape do not fit");
  }
  Windows flipped = windows;
  for (size_t i = 0; i < axes; ++i) {
    const int64_t extent = b.shape(x)[static_cast<int>(i) + 2];
    const int64_t full = windows.strides[i] * (extent - 1) + extra[i] + windows.reach(i);
    const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
    if (!wanted.empty() || same) {
      const int64_t target =
          wanted.empty() ? extent * windows.strides[i] : wanted[wanted.size() - axes + i];
      const int64_t total = std::max<int64_t>(0, full - target);
      windows.before[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      windows.after[i] = full - target - windows.before[i];
    }
    flipped.strides[i] = 1;
    flipped.before[i] = windows.reach(i) - 1 - windows.before[i];
    flipped.after[i] = windows.reach(i) - 1 - windows.after[i] + extra[i];
  }
  // [in, out / group, kernel...] -> [out, in / group, kernel reversed...]
  Ints kernel = Spatial(b.shape(w));
  const int64_t in = b.shape(w)[0], out = b.shape(w)[1];
  Ints grouped = {group, in / group, out};
  grouped.insert(grouped.end(), kernel.begin(), kernel.end());
  Ints order = AllAxes(static_cast<int>(grouped.size()));
  std::swap(order[1], order[2]);
  w = b.Transpose(b.Reshape(w, grouped), order);
  Ints merged = {group * out, in / group};
  merged.insert(merged.end(), kernel.begin(), kernel.end());
  w = b.Reshape(w, merged);
  for (size_t i = 0; i < axes; ++i) {
    w = b.Slice(w, static_cast<int>(i) + 2, kernel[i] - 1, -1, kernel[i]);
  }
  const Id y = Convolve(b, Spread(b, x, windows.strides), w, flipped, group);
  c.Set(0, c.has(2) ? AddChannels(b, y, c.in(2)) : y);
}

double Lowest(DType type) {
  switch (type) {
    case DType::kI8:
      return -128;
    case DType::kU8:
      return 0;
    default:
      return -std::numeric_limits<double>::infinity();
  }
}

// Where the largest elements are in x as a whole, counted in memory order.
Id LargestPositions(Call& c, Id x, Id unfolded, const Windows& w) {
  Builder& b = c.b;
  const Shape shape = b.shape(x);
  if (c.Int("storage_order", 0) != 0) FailUnsupported("storage_order 1");
  Ints numbers(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int64_t>(i);
  const Id positions = Unfold(b, b.Reshape(b.Constant(TensorOf(numbers)), Extents(shape)), w, 0);
  Ints flat = Extents(b.shape(unfolded));
  flat.resize(2 + w.axes());
  flat.push_back(Product(w.kernel));
  const Id best = b.Node("arg_extreme", {b.Reshape(unfolded, flat)},
                         {{"axis", int64_t{-1}}, {"largest", int64_t{1}}, {"last", int64_t{0}}});
  const Id chosen =
      b.Node("gather_elements", {b.Reshape(positions, flat), best}, {{"axis", int64_t{-1}}});
  return b.Squeeze(chosen, {-1});
}

// An op of runtime/ops over the last two axes of x; of one spatial axis as of two.
Id WindowOp(Builder& b, std::string_view op, Id x, std::vector<Id> more, const Windows& w,
            graph::Attributes attributes) {
  const bool one = w.axes() == 1;
  const auto pair = [&](const Ints& numbers, int64_t first) {
    return one ? Ints{first, numbers[0]} : numbers;
  };
  attributes.Set("strides", pair(w.strides, 1));
  attributes.Set("dilations", pair(w.dilations, 1));
  attributes.Set("pads", one ? Ints{0, w.before[0], 0, w.after[0]}
                             : Ints{w.before[0], w.before[1], w.after[0], w.after[1]});
  if (op != "conv2d") attributes.Set("kernel", pair(w.kernel, 1));
  std::vector<Id> inputs = {one ? b.Unsqueeze(x, {2}) : x};
  inputs.insert(inputs.end(), more.begin(), more.end());
  const Id y = b.Node(op, inputs, std::move(attributes));
  return one ? b.Squeeze(y, {2}) : y;
}

bool HasWindowOp(Builder& b, Id x, const Windows& w) {
  return b.dtype(x) == DType::kF32 && w.axes() <= 2 && !IsEmpty(b.shape(x));
}

void MaxPool(Call& c) {
  const Id x = c.in(0);
  const Windows w = ReadWindows(c, c.b.shape(x), {});
  if (HasWindowOp(c.b, x, w) && !c.wants(1)) {
    return c.Set(0, WindowOp(c.b, "max_pool2d", x, {}, w, {}));
  }
  const Id unfolded = Unfold(c.b, x, w, Lowest(c.b.dtype(x)));
  c.Set(0, c.b.Reduce("max", unfolded, KernelAxes(w), false));
  if (c.wants(1)) c.Set(1, LargestPositions(c, x, unfolded, w));
}

void AveragePool(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const Windows w = ReadWindows(c, b.shape(x), {});
  const bool include = c.Int("count_include_pad", 0) != 0;
  // A window that ceil_mode adds counts its padding in neither way.
  if (HasWindowOp(b, x, w) && !(include && c.Int("ceil_mode", 0) != 0)) {
    return c.Set(0, WindowOp(b, "average_pool2d", x, {}, w, {{"include_pad", int64_t{include}}}));
  }
  const Id sum = b.Reduce("sum", Unfold(b, x, w, 0), KernelAxes(w), false);
  // How many elements each window covers: ones where there is input, or declared padding.
  Windows rest = w;
  Ints inside = {1, 1}, before = {0, 0}, after = {0, 0};
  const bool padding = c.Int("count_include_pad", 0) != 0;
  const Ints pads = c.List("pads", Ints(2 * w.axes(), 0));
  for (size_t i = 0; i < w.axes(); ++i) {
    inside.push_back(b.shape(x)[static_cast<int>(i) + 2]);
    if (!padding) continue;
    const bool declared = c.Text("auto_pad", "NOTSET") == "NOTSET";
    const int64_t tail = declared ? pads[w.axes() + i] : w.after[i];
    inside[i + 2] += w.before[i] + tail;
    rest.before[i] = 0;
    rest.after[i] = w.after[i] - tail;
  }
  const Id ones = b.Expand(b.Like(x, 1), Shape(inside));
  const Id count = b.Reduce("sum", Unfold(b, ones, rest, 0), KernelAxes(w), false);
  c.Set(0, b.Div(sum, count));
}

void LpPool(Call& c) {
  const Id x = c.in(0);
  const Windows w = ReadWindows(c, c.b.shape(x), {});
  const double p = static_cast<double>(c.Int("p", 2));
  const Id powers = c.b.Binary("pow", c.b.Unary("abs", Unfold(c.b, x, w, 0)), p);
  c.Set(0, c.b.Binary("pow", c.b.Reduce("sum", powers, KernelAxes(w), false), 1 / p));
}

Ints AfterChannels(Call& c) {
  Ints axes = AllAxes(c.b.rank(c.in(0)));
  if (axes.size() < 3) FailInvalid("input 0 must have batch, channels and at least one more axis");
  axes.erase(axes.begin(), axes.begin() + 2);
  return axes;
}
void GlobalAveragePool(Call& c) {
  c.Set(0, c.b.Reduce("mean", c.in(0), AfterChannels(c)));
}
void GlobalMaxPool(Call& c) {
  c.Set(0, c.b.Reduce("max", c.in(0), AfterChannels(c)));
}

void MaxUnpool(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const Ints kernel = c.List("kernel_shape");
  Windows w = ReadWindows(c, b.shape(x), kernel);
  Ints extents = Extents(b.shape(x));
  for (size_t i = 0; i < w.axes(); ++i) {
    extents[i + 2] = (extents[i + 2] - 1) * w.strides[i] + w.kernel[i] - w.before[i] - w.after[i];
  }
  if (c.has(2)) extents = c.Integers(2, "output_shape");
  const Id zeros = b.Expand(b.Like(x, 0), Shape({Product(extents)}));
  const int64_t count = b.shape(x).elements();
  const Id filled =
      b.Node("scatter_elements", {zeros, b.Reshape(c.in(1), {count}), b.Reshape(x, {count})},
             {{"axis", int64_t{0}}});
  c.Set(0, b.Reshape(filled, extents));
}

constexpr std::string_view kFloats = "f16, bf16, f32, f64";
constexpr Rule kRules[] = {
    {"AveragePool", 7, kFloats, AveragePool},
    {"Conv", 1, kFloats, Conv},
    {"ConvTranspose", 1, kFloats, ConvTranspose},
    {"GlobalAveragePool", 1, kFloats, GlobalAveragePool},
    {"GlobalMaxPool", 1, kFloats, GlobalMaxPool},
    {"LpPool", 2, kFloats, LpPool},
    {"MaxPool", 1, "f16, bf16, f32, f64, i8, u8", MaxPool},
    {"MaxUnpool", 9, kFloats, MaxUnpool},
};

}  // namespace rules_convolution

Id Convolve(Builder& b, Id x, Id w, const Windows& windows, int64_t group) {
  const Shape shape = b.shape(x), filter = b.shape(w);
  if (filter.rank() != shape.rank() || group < 1 || shape[1] % group != 0 ||
      filter[0] % group != 0 || filter[1] != shape[1] / group ||
      rules_convolution::Spatial(filter) != windows.kernel) {
    FailInvalid("weights " + filter.ToString() + " in " + std::to_string(group) +
                " groups do not fit input " + shape.ToString());
  }
  if (rules_convolution::HasWindowOp(b, x, windows) && !IsEmpty(filter)) {
    const Id weights = windows.axes() == 1 ? b.Unsqueeze(w, {2}) : w;
    return rules_convolution::WindowOp(b, "conv2d", x, {weights}, windows, {{"groups", group}});
  }
  const int axes = static_cast<int>(windows.axes());
  const Ints outputs = windows.Outputs(shape);
  const int64_t patch = Product(windows.kernel) * filter[1];
  // [n, c, outputs, kernel] -> [n, c, kernel, outputs] -> [n, group, patch, outputs]
  Ints order = {0, 1};
  for (int i = 0; i < axes; ++i) order.push_back(2 + axes + i);
  for (int i = 0; i < axes; ++i) order.push_back(2 + i);
  const Id columns = b.Reshape(b.Transpose(Unfold(b, x, windows, 0), order),
                               {shape[0], group, patch, Product(outputs)});
  const Id y = b.Matmul(b.Reshape(w, {1, group, filter[0] / group, patch}), columns);
  Ints extents = {shape[0], filter[0]};
  extents.insert(extents.end(), outputs.begin(), outputs.end());
  return b.Reshape(y, extents);
}

std::span<const Rule> ConvolutionRules() {
  return rules_convolution::kRules;
}

}  // namespace lepton::onnx
