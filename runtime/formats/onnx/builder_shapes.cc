// The builder's reshapes, slices and joins.
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

int Builder::Axis(int64_t axis, int rank) const {
  return Must(ops::general::ResolveAxis(axis, rank));
}

Id Builder::Strided(Id x, Ints extents, Ints strides, int64_t offset) {
  if (shape(x).open()) FailUnsupported("this with an open extent: " + type(x).ToString());
  Product(extents);
  return Node("strided", {x},
              {{"shape", std::move(extents)}, {"strides", std::move(strides)}, {"offset", offset}});
}

Id Builder::Reshape(Id x, Ints extents) {
  if (extents == shape(x).extents()) return x;
  if (const graph::Node* back = Producer(x, "reshape")) {
    if (extents == shape(back->inputs[0]).extents()) return back->inputs[0];
  }
  if (shape(x).open()) return OpenReshape(x, std::move(extents));
  if (Product(extents) != shape(x).elements()) {
    FailInvalid("cannot give " + type(x).ToString() + " the shape " + Shape(extents).ToString());
  }
  if (!IsEmpty(shape(x))) return Node("reshape", {x}, {{"shape", std::move(extents)}});
  Ints strides = DenseStrides(extents);
  return Strided(x, std::move(extents), std::move(strides));
}

Id Builder::Transpose(Id x, const Ints& order) {
  if (static_cast<int>(order.size()) != rank(x)) FailInvalid("perm: must name every axis once");
  std::vector<bool> seen(order.size());
  for (const int64_t axis : order) {
    if (axis < 0 || axis >= rank(x) || seen[axis]) FailInvalid("perm: must name every axis once");
    seen[axis] = true;
  }
  if (std::is_sorted(order.begin(), order.end())) return x;
  if (const graph::Node* back = Producer(x, "transpose")) {
    const Ints first = back->attributes.Ints("perm");
    bool same = true;
    for (size_t i = 0; i < order.size(); ++i) same &= first[order[i]] == static_cast<int64_t>(i);
    if (same) return back->inputs[0];
  }
  if (!IsEmpty(shape(x))) return Node("transpose", {x}, {{"perm", order}});
  const Ints from = DenseStrides(shape(x).extents());
  Ints extents, strides;
  for (const int64_t axis : order) {
    extents.push_back(shape(x)[static_cast<int>(axis)]);
    strides.push_back(from[axis]);
  }
  return Strided(x, std::move(extents), std::move(strides));
}

Id Builder::Slice(Id x, int axis, int64_t start, int64_t step, int64_t count) {
  if (start == 0 && step == 1 && count == shape(x)[axis]) return x;
  if (shape(x)[axis] >= 0 && !IsEmpty(shape(x)) && count > 0 && step > 0 && start >= 0 &&
      (count == 1 || step < shape(x)[axis]) && start + (count - 1) * step < shape(x)[axis]) {
    return Node("slice", {x},
                {{"axis", int64_t{axis}},
                 {"begin", start},
                 {"end", start + (count - 1) * step + 1},
                 {"step", step}});
  }
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
  Ints marks, axes;
  std::vector<Id> inputs = {x};
  for (const auto& [mark, open] : open_axes_) {
    const auto& extents = to.extents();
    if (std::find(extents.begin(), extents.end(), mark) == extents.end()) continue;
    marks.push_back(mark);
    axes.push_back(open.axis);
    inputs.push_back(open.value);
  }
  const auto repeated = graph_.AddNode(
      "repeat", inputs, {{"shape", to.extents()}, {"marks", marks}, {"axes", axes}}, context_);
  if (!repeated.ok()) {
    FailInvalid("cannot repeat " + type(x).ToString() + " to " + to.ToString());
  }
  CheckSize(type(repeated->front()));
  CheckRows(graph_.nodes()[graph_.value(repeated->front()).producer]);
  // It follows from x alone: of the others only the extents count.
  Track({x}, *repeated);
  if (inputs.size() > 1) constant_[repeated->front()] = false;
  return repeated->front();
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
  if (inputs.empty()) FailInvalid("nothing to join");
  if (inputs.size() == 1) return inputs[0];
  const int along = Axis(axis, rank(inputs[0]));
  const bool plain = std::all_of(inputs.begin(), inputs.end(), [&](Id input) {
    return rank(input) == rank(inputs[0]) && !IsEmpty(shape(input)) && shape(input)[along] >= 0;
  });
  if (!plain && std::any_of(inputs.begin(), inputs.end(), [&](Id x) { return shape(x).open(); })) {
    FailUnsupported("joining along an open axis");
  }
  return Node(plain ? "concat" : "join", std::move(inputs), {{"axis", int64_t{along}}});
}

Id Builder::Take(Id x, Id indices, int64_t axis) {
  const int along = Axis(axis, rank(x));
  const bool core = dtype(x) == DType::kF32 || dtype(x) == DType::kBF16 || dtype(x) == DType::kI32;
  if (core && !IsEmpty(shape(x)) && !IsEmpty(shape(indices))) {
    return Node("gather", {x, Convert(indices, DType::kI32)}, {{"axis", int64_t{along}}});
  }
  return Node("take", {x, Convert(indices, DType::kI64)}, {{"axis", int64_t{along}}});
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

}  // namespace lepton::onnx
