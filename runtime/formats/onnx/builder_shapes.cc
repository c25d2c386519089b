// The builder's reshapes, slices and sums.
#include <algorithm>

#include "runtime/formats/onnx/builder.h"
#include "runtime/ops/general/shape_rules.h"

namespace lepton::onnx {
namespace {

Ints DenseStrides(const Ints& extents) {
  Ints strides(extents.size(), 1);
  for (size_t axis = extents.size(); axis-- > 1;) {
    strides[axis - 1] = strides[axis] * std::max<int64_t>(1, extents[axis]);
  }
  return strides;
}

}  // namespace

int Builder::Axis(int64_t axis, int rank) {
  return Must(ops::general::ResolveAxis(axis, rank));
}

Id Builder::Strided(Id x, Ints extents, Ints strides, int64_t offset) {
  Product(extents);
  return Node("strided", {x},
              {{"shape", std::move(extents)}, {"strides", std::move(strides)}, {"offset", offset}});
}

Id Builder::Reshape(Id x, Ints extents) {
  if (extents == shape(x).extents()) return x;
  if (Product(extents) != shape(x).elements()) {
    FailInvalid("cannot give " + type(x).ToString() + " the shape " + Shape(extents).ToString());
  }
  Ints strides = DenseStrides(extents);
  return Strided(x, std::move(extents), std::move(strides));
}

Id Builder::Transpose(Id x, const Ints& order) {
  const Ints from = DenseStrides(shape(x).extents());
  if (order.size() != from.size()) FailInvalid("perm: must name every axis once");
  Ints extents, strides;
  std::vector<bool> seen(order.size());
  for (const int64_t axis : order) {
    if (axis < 0 || axis >= rank(x) || seen[axis]) FailInvalid("perm: must name every axis once");
    seen[axis] = true;
    extents.push_back(shape(x)[static_cast<int>(axis)]);
    strides.push_back(from[axis]);
  }
  return Strided(x, std::move(extents), std::move(strides));
}

Id Builder::Slice(Id x, int axis, int64_t start, int64_t step, int64_t count) {
  Ints extents = shape(x).extents();
  Ints strides = DenseStrides(extents);
  const int64_t offset = count == 0 ? 0 : start * strides[axis];
  extents[axis] = count;
  if (count > 1 && __builtin_mul_overflow(strides[axis], step, &strides[axis])) {
    FailInvalid("a step beyond 64 bits");
  }
  return Strided(x, std::move(extents), std::move(strides), offset);
}

Id Builder::Expand(Id x, const Shape& to) {
  if (to == shape(x)) return x;
  const Ints from = shape(x).extents();
  const Ints dense = DenseStrides(from);
  Ints strides(to.rank(), 0);
  const int missing = to.rank() - rank(x);
  if (missing < 0) FailInvalid("cannot repeat " + type(x).ToString() + " to " + to.ToString());
  for (int axis = 0; axis < rank(x); ++axis) {
    if (from[axis] != 1 && from[axis] != to[axis + missing]) {
      FailInvalid("cannot repeat " + type(x).ToString() + " to " + to.ToString());
    }
    if (from[axis] != 1) strides[axis + missing] = dense[axis];
  }
  return Strided(x, to.extents(), std::move(strides));
}

Id Builder::Pad(Id x, Ints before, Ints after, double value) {
  const auto zero = [](int64_t n) { return n == 0; };
  if (std::all_of(before.begin(), before.end(), zero) &&
      std::all_of(after.begin(), after.end(), zero)) {
    return x;
  }
  return Node("pad_constant", {x, Like(x, value)},
              {{"before", std::move(before)}, {"after", std::move(after)}});
}

Id Builder::Concat(std::vector<Id> inputs, int64_t axis) {
  if (inputs.size() == 1) return inputs[0];
  return Node("join", std::move(inputs), {{"axis", axis}});
}

Id Builder::Squeeze(Id x, const Ints& axes) {
  Ints extents = shape(x).extents();
  std::vector<bool> drop(extents.size());
  for (const int64_t axis : axes) drop[Axis(axis, rank(x))] = true;
  Ints kept;
  for (size_t i = 0; i < extents.size(); ++i) {
    if (drop[i] && extents[i] != 1) FailInvalid("axes: only extents of 1 can be squeezed");
    if (!drop[i]) kept.push_back(extents[i]);
  }
  return Reshape(x, std::move(kept));
}

Id Builder::Unsqueeze(Id x, Ints axes) {
  const int full = rank(x) + static_cast<int>(axes.size());
  for (int64_t& axis : axes) axis = Axis(axis, full);
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) {
    FailInvalid("axes: must name each axis once");
  }
  Ints extents = shape(x).extents();
  for (const int64_t axis : axes) extents.insert(extents.begin() + axis, 1);
  return Reshape(x, std::move(extents));
}

Id Builder::Reduce(std::string_view function, Id x, const Ints& axes, bool keep) {
  const Id reduced =
      axes.empty() && function != "sum_square" && function != "l1"
          ? x
          : Node("reduce_axes", {x}, {{"function", std::string(function)}, {"axes", axes}});
  return keep ? reduced : Squeeze(reduced, axes);
}

Id Builder::Matmul(Id a, Id b) {
  const DType result = dtype(a);
  const bool half = result == DType::kF16 || result == DType::kBF16;
  if (half) {
    a = Convert(a, DType::kF32);
    b = Convert(b, DType::kF32);
  }
  if (rank(a) < 1 || rank(b) < 1) FailInvalid("a product of scalars");
  const bool row = rank(a) == 1;
  const bool column = rank(b) == 1;
  if (row) a = Unsqueeze(a, {0});
  if (column) b = Unsqueeze(b, {1});
  const bool fast = rank(a) == 2 && rank(b) == 2 && dtype(a) == DType::kF32 &&
                    dtype(b) == DType::kF32 && shape(a).elements() > 0 && shape(b).elements() > 0;
  Id y = Node(fast ? "matmul" : "general_matmul", {a, b});
  if (column) y = Squeeze(y, {-1});
  if (row) y = Squeeze(y, {column ? -1 : -2});
  return Convert(y, result);
}

Id Builder::Softmax(Id x, int64_t axis) {
  const Id e = Unary("exp", Sub(x, Reduce("max", x, {axis})));
  return Div(e, Reduce("sum", e, {axis}));
}

Id Builder::LogSoftmax(Id x, int64_t axis) {
  const Id shifted = Sub(x, Reduce("max", x, {axis}));
  return Sub(shifted, Unary("log", Reduce("sum", Unary("exp", shifted), {axis})));
}

}  // namespace lepton::onnx
