// Operators whose result is known at import, for the shapes and values given.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_constant {

void Constant(Call& c) {
  if (c.HasAttribute("value")) return c.Set(0, c.b.Constant(c.Tensor("value")));
  if (c.HasAttribute("value_int")) {
    HostTensor tensor = TensorOf({c.Int("value_int", 0)});
    tensor.type.shape = {};
    return c.Set(0, c.b.Constant(std::move(tensor)));
  }
  if (c.HasAttribute("value_ints")) {
    const auto& ints = c.Find("value_ints")->ints();
    return c.Set(0, c.b.Constant(TensorOf(Ints(ints.begin(), ints.end()))));
  }
  if (c.HasAttribute("value_float")) {
    return c.Set(0, c.b.Scalar(DType::kF32, c.Float("value_float", 0)));
  }
  if (c.HasAttribute("value_floats")) {
    const auto numbers = c.Floats("value_floats");
    return c.Set(0, c.b.Constant(TensorOf(DType::kF32,
                                          Shape({static_cast<int64_t>(numbers.size())}), numbers)));
  }
  FailUnsupported("a constant of text or a sparse one");
}

void ConstantOfShape(Call& c) {
  Ints extents;
  Groups groups;
  for (const Size& size : c.Sizes(0, "shape")) {
    if (size.number < 0) FailInvalid("shape: a negative extent");
    const Ints factors = FactorsOf(size);
    groups.push_back(static_cast<int>(factors.size()));
    extents.insert(extents.end(), factors.begin(), factors.end());
  }
  const Id value =
      c.HasAttribute("value") ? c.b.Constant(c.Tensor("value")) : c.b.Scalar(DType::kF32, 0);
  c.Set(0, c.b.Expand(c.b.Reshape(value, {}), Shape(extents)), std::move(groups));
}

void ShapeOf(Call& c) {
  c.whole(0);
  const std::vector<Size> sizes = SizesOf(c.b, c.ref(0));
  const auto rank = static_cast<int64_t>(sizes.size());
  const auto clamp = [rank](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t start = clamp(c.Int("start", 0));
  const int64_t end = std::max(start, clamp(c.Int("end", rank)));
  c.Set(0, c.b.ShapeOf({sizes.begin() + start, sizes.begin() + end}));
}

void Size(Call& c) {
  HostTensor tensor = TensorOf({c.b.Merged(Extents(c.b.shape(c.in(0))))});
  if (AsIntegers(tensor).front() < 0) FailUnsupported("the size of an open extent");
  tensor.type.shape = {};
  c.Set(0, c.b.Constant(std::move(tensor)));
}

void Range(Call& c) {
  const double start = c.Number(0, "start"), delta = c.Number(2, "delta");
  if (c.b.HasMarks(c.in(1)) && start == 0 && delta == 1) {
    const Ints length = c.Marked(1, "limit");
    if (length.size() != 1) FailInvalid("limit must be one number");
    const Id positions = c.b.Positions(Builder::FromMark(length[0]));
    return c.Set(0, c.b.Convert(positions, c.b.dtype(c.in(0))));
  }
  const double limit = c.Number(1, "limit");
  const double count = std::max(0.0, std::ceil((limit - start) / delta));
  if (!(count <= static_cast<double>(c.b.options().limits.value_bytes / 8))) {
    FailInvalid("delta: too many elements");
  }
  std::vector<double> numbers(static_cast<size_t>(count));
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = start + static_cast<double>(i) * delta;
  c.Set(0, c.b.Constant(TensorOf(c.b.dtype(c.in(0)), Shape({static_cast<int64_t>(numbers.size())}),
                                 numbers)));
}

void EyeLike(Call& c) {
  const Id x = c.in(0);
  if (c.b.rank(x) != 2) FailInvalid("input 0 must have two axes");
  const DType type = c.HasAttribute("dtype")
                         ? Must(DTypeFromCode(static_cast<int32_t>(c.Int("dtype", 1))))
                         : c.b.dtype(x);
  const int64_t rows = c.b.shape(x)[0], columns = c.b.shape(x)[1], k = c.Int("k", 0);
  if (rows < 0 || columns < 0) FailUnsupported("a table of an open extent");
  c.b.CheckElements(rows * columns, DType::kF64);  // the shape's product is one of 64 bits
  std::vector<double> numbers(rows * columns, 0);
  for (int64_t row = 0; row < rows; ++row) {
    if (row + k >= 0 && row + k < columns) numbers[row * columns + row + k] = 1;
  }
  c.Set(0, c.b.Constant(TensorOf(type, c.b.shape(x), numbers)));
}

void OneHot(Call& c) {
  const double depth = c.Number(1, "depth");
  if (!(depth >= 0 && depth <= 1e9)) FailInvalid("depth: must be between 0 and 1e9");
  const auto classes = static_cast<int64_t>(depth);
  c.b.CheckElements(classes, DType::kI64);
  const Id indices = c.b.Convert(c.in(0), DType::kI64);
  const int rank = c.b.rank(indices);
  const int axis = c.b.Axis(c.Int("axis", -1), rank + 1);
  Ints along(rank + 1, 1);
  along[axis] = classes;
  const Id numbers = c.b.Reshape(c.b.Constant(TensorOf(AllAxes(static_cast<int>(classes)))), along);
  const Id negative = c.b.Binary("less", indices, 0.0);
  const Id wrapped = c.b.Select(negative, c.b.Add(indices, depth), indices);
  const Id hot = c.b.Binary("equal", c.b.Unsqueeze(wrapped, {axis}), numbers);
  const Id off = c.b.Reshape(c.b.Slice(c.in(2), 0, 0, 1, 1), {});
  const Id on = c.b.Reshape(c.b.Slice(c.in(2), 0, 1, 1, 1), {});
  c.Set(0, c.b.Select(hot, on, off));
}

// Windows: sums of cosines of 2 pi i / n.
void Window(Call& c, const std::vector<double>& weights) {
  const double size = c.Number(0, "size");
  if (!(size >= 0 && size <= 1e8)) FailInvalid("size: must be between 0 and 1e8");
  c.b.CheckElements(static_cast<int64_t>(size), DType::kF64);
  const double n = c.Int("periodic", 1) != 0 ? size : size - 1;
  std::vector<double> numbers(static_cast<size_t>(size));
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (size_t k = 0; k < weights.size(); ++k) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(k * i) / n;
      numbers[i] += weights[k] * std::cos(angle);
    }
  }
  const DType type = Must(DTypeFromCode(static_cast<int32_t>(c.Int("output_datatype", 1))));
  c.Set(0, c.b.Constant(TensorOf(type, Shape({static_cast<int64_t>(numbers.size())}), numbers)));
}
void Hann(Call& c) {
  Window(c, {0.5, -0.5});
}
void Hamming(Call& c) {
  Window(c, {25.0 / 46, -21.0 / 46});
}
void Blackman(Call& c) {
  Window(c, {0.42, -0.5, 0.08});
}

constexpr Rule kRules[] = {
    {"BlackmanWindow", 17, "all numbers", Blackman},
    {"Constant", 1, "all but text", Constant},
    {"ConstantOfShape", 9, "all but text", ConstantOfShape},
    {"EyeLike", 9, "all but text", EyeLike},
    {"HammingWindow", 17, "all numbers", Hamming},
    {"HannWindow", 17, "all numbers", Hann},
    {"OneHot", 9, "all but text", OneHot},
    {"Range", 11, "all numbers", Range},
    {"Shape", 1, "all but text", ShapeOf},
    {"Size", 1, "all but text", Size},
};

}  // namespace rules_constant

std::span<const Rule> ConstantRules() {
  return rules_constant::kRules;
}

}  // namespace lepton::onnx
