#include "runtime/formats/onnx/windows.h"

#include <algorithm>

namespace lepton::onnx {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;

void CheckRange(const Ints& numbers, int64_t least, std::string_view name, size_t count) {
  if (numbers.size() != count) FailInvalid(std::string(name) + ": must name each spatial axis");
  for (const int64_t number : numbers) {
    if (number < least || number > kMost) FailInvalid(std::string(name) + ": out of range");
  }
}

}  // namespace

Ints Windows::Outputs(const Shape& x) const {
  Ints outputs;
  for (size_t i = 0; i < axes(); ++i) {
    const int64_t extent = x[static_cast<int>(i) + 2] + before[i] + after[i];
    if (extent < reach(i)) FailInvalid("kernel_shape: larger than the padded input");
    outputs.push_back((extent - reach(i)) / strides[i] + 1);
  }
  return outputs;
}

Windows ReadWindows(Call& c, const Shape& x, Ints kernel) {
  if (x.rank() < 3) FailInvalid("input 0 must have batch, channels and at least one more axis");
  const size_t axes = static_cast<size_t>(x.rank()) - 2;
  Windows w;
  w.kernel = c.List("kernel_shape", std::move(kernel));
  w.strides = c.List("strides", Ints(axes, 1));
  w.dilations = c.List("dilations", Ints(axes, 1));
  const Ints pads = c.List("pads", Ints(2 * axes, 0));
  CheckRange(w.kernel, 1, "kernel_shape", axes);
  CheckRange(w.strides, 1, "strides", axes);
  CheckRange(w.dilations, 1, "dilations", axes);
  CheckRange(pads, 0, "pads", 2 * axes);
  w.before.assign(pads.begin(), pads.begin() + static_cast<int64_t>(axes));
  w.after.assign(pads.begin() + static_cast<int64_t>(axes), pads.end());
  const std::string mode = c.Text("auto_pad", "NOTSET");
  for (size_t i = 0; i < axes; ++i) {
    const int64_t extent = x[static_cast<int>(i) + 2];
    if (extent < 0) FailUnsupported("a window over an open axis");
    if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      const int64_t outputs = (extent + w.strides[i] - 1) / w.strides[i];
      const int64_t total =
          std::max<int64_t>(0, (outputs - 1) * w.strides[i] + w.reach(i) - extent);
      w.before[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.after[i] = total - w.before[i];
    } else if (mode == "VALID") {
      w.before[i] = w.after[i] = 0;
    }
    if (c.Int("ceil_mode", 0) != 0) {
      const int64_t rest = (extent + w.before[i] + w.after[i] - w.reach(i)) % w.strides[i];
      if (rest > 0) w.after[i] += w.strides[i] - rest;
    }
  }
  return w;
}

Id Unfold(Builder& b, Id x, const Windows& w, double fill) {
  Ints before = {0, 0}, after = {0, 0};
  before.insert(before.end(), w.before.begin(), w.before.end());
  after.insert(after.end(), w.after.begin(), w.after.end());
  const Ints outputs = w.Outputs(b.shape(x));
  const Id padded = b.Pad(x, before, after, fill);
  const Shape& shape = b.shape(padded);
  Ints dense(shape.rank(), 1);
  for (int axis = shape.rank() - 1; axis > 0; --axis) dense[axis - 1] = dense[axis] * shape[axis];
  Ints extents = {shape[0], shape[1]}, strides = {dense[0], dense[1]};
  for (size_t i = 0; i < w.axes(); ++i) {
    extents.push_back(outputs[i]);
    strides.push_back(dense[i + 2] * w.strides[i]);
  }
  for (size_t i = 0; i < w.axes(); ++i) {
    extents.push_back(w.kernel[i]);
    strides.push_back(dense[i + 2] * w.dilations[i]);
  }
  return b.Strided(padded, std::move(extents), std::move(strides));
}

}  // namespace lepton::onnx
