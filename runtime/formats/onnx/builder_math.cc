// The builder's sums, products and softmaxes: of f32 by the ops of runtime/ops, which are fast and
// have gradients, else by the general ones.
#include <algorithm>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx {

Id Builder::Reduce(std::string_view function, Id x, const Ints& axes, bool keep) {
  Ints sorted = axes;
  for (int64_t& axis : sorted) axis = Axis(axis, rank(x));
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  const bool core = dtype(x) == DType::kF32 && (function == "sum" || function == "mean") &&
                    !sorted.empty() && !IsEmpty(shape(x));
  if (!core) {
    const Id reduced =
        axes.empty() && function != "sum_square" && function != "l1"
            ? x
            : Node("reduce_axes", {x}, {{"function", std::string(function)}, {"axes", sorted}});
    return keep ? reduced : Squeeze(reduced, sorted);
  }
  Ints kept = Extents(shape(x)), gone;
  for (const int64_t axis : sorted) kept[axis] = 1;
  for (int axis = 0; axis < rank(x); ++axis) {
    if (!std::binary_search(sorted.begin(), sorted.end(), axis)) gone.push_back(shape(x)[axis]);
  }
  // Neighbours as one axis.
  const bool neighbours = sorted.back() - sorted.front() + 1 == static_cast<int64_t>(sorted.size());
  if (sorted.size() > 1 && neighbours) {
    const Ints& extents = shape(x).extents();
    const Ints inside(extents.begin() + sorted.front(), extents.begin() + sorted.back() + 1);
    if (std::all_of(inside.begin(), inside.end(), [](int64_t extent) { return extent > 0; })) {
      Ints merged(extents.begin(), extents.begin() + sorted.front());
      merged.push_back(Product(inside));
      merged.insert(merged.end(), extents.begin() + sorted.back() + 1, extents.end());
      x = Reshape(x, std::move(merged));
      sorted.resize(1);
    }
  }
  for (size_t i = sorted.size(); i-- > 0;) {
    x = Node("reduce", {x}, {{"axis", sorted[i]}, {"kind", std::string(function)}});
  }
  return Reshape(x, keep ? kept : gone);
}

namespace {

// Whether `id` is another value with its last two axes swapped; then that one.
std::optional<Id> Unswapped(const Builder& b, Id id) {
  const graph::Node* node = b.Producer(id, "transpose");
  if (node == nullptr) return std::nullopt;
  Ints perm = node->attributes.Ints("perm");
  std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  if (!std::is_sorted(perm.begin(), perm.end())) return std::nullopt;
  return node->inputs[0];
}

}  // namespace

Id Builder::MatmulF32(Id a, Id b) {
  const auto leading = [&](Id x) {
    return Ints(shape(x).extents().begin(), shape(x).extents().end() - 2);
  };
  const Ints repeats = leading(b);
  if (rank(b) > 2 && rank(b) <= rank(a) &&
      std::all_of(repeats.begin(), repeats.end(), [](int64_t extent) { return extent == 1; })) {
    b = Reshape(b, {shape(b)[rank(b) - 2], shape(b).back()});
  }
  graph::Attributes attributes;
  if (rank(b) == 2) {
    if (const auto plain = Unswapped(*this, b)) {
      b = *plain;
      attributes.Set("transpose_b", int64_t{1});
    }
    if (rank(a) == 2) {
      if (const auto plain = Unswapped(*this, a)) {
        a = *plain;
        attributes.Set("transpose_a", int64_t{1});
      }
    }
    return Node("matmul", {a, b}, std::move(attributes));
  }
  // A product per leading index, for which both must have all of them.
  Ints batch = leading(a), other = leading(b);
  while (batch.size() < other.size()) batch.insert(batch.begin(), 1);
  while (other.size() < batch.size()) other.insert(other.begin(), 1);
  Ints all = batch;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] == 1) all[i] = other[i];
    if (other[i] != 1 && other[i] != all[i]) {
      FailInvalid("inputs " + type(a).ToString() + " and " + type(b).ToString() +
                  " do not multiply");
    }
  }
  const auto widened = [&](Id x) {
    Ints extents = all;
    extents.push_back(shape(x)[rank(x) - 2]);
    extents.push_back(shape(x).back());
    return Expand(x, Shape(std::move(extents)));
  };
  a = widened(a);
  b = widened(b);
  if (const auto plain = Unswapped(*this, b)) {
    b = *plain;
    attributes.Set("transpose_b", int64_t{1});
  }
  return Node("batch_matmul", {a, b}, std::move(attributes));
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
  const bool core = dtype(a) == DType::kF32 && dtype(b) == DType::kF32 && !IsEmpty(shape(a)) &&
                    !IsEmpty(shape(b));
  Id y = core ? MatmulF32(a, b) : Node("general_matmul", {a, b});
  if (column) y = Squeeze(y, {-1});
  if (row) y = Squeeze(y, {column ? -1 : -2});
  return Convert(y, result);
}

// The core ops work on rows of the last axis.
Id Builder::SoftmaxRows(std::string_view op, Id x, int64_t axis) {
  const int at = Axis(axis, rank(x));
  if (rank(x) == 1) return Reshape(Node(op, {Reshape(x, {1, shape(x)[0]})}), Extents(shape(x)));
  Ints order = AllAxes(rank(x));
  std::swap(order[at], order.back());
  return Transpose(Node(op, {Transpose(x, order)}), order);
}

Id Builder::Softmax(Id x, int64_t axis) {
  if (dtype(x) == DType::kF32 && rank(x) > 0 && !IsEmpty(shape(x))) {
    return SoftmaxRows("softmax", x, axis);
  }
  const Id e = Unary("exp", Sub(x, Reduce("max", x, {axis})));
  return Div(e, Reduce("sum", e, {axis}));
}

Id Builder::LogSoftmax(Id x, int64_t axis) {
  if (dtype(x) == DType::kF32 && rank(x) > 0 && !IsEmpty(shape(x))) {
    return SoftmaxRows("log_softmax", x, axis);
  }
  const Id shifted = Sub(x, Reduce("max", x, {axis}));
  return Sub(shifted, Unary("log", Reduce("sum", Unary("exp", shifted), {axis})));
}

}  // namespace lepton::onnx
