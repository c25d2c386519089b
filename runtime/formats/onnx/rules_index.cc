// Operators that choose elements by index.
#include <algorithm>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_index {

Id Indices(Call& c, int input) {
  return c.b.Convert(c.in(input), DType::kI64);
}

void Gather(Call& c) {
  Groups groups = c.groups(0);
  const int64_t axis = c.b.Axis(c.Int("axis", 0), static_cast<int>(groups.size()));
  const Id chosen = c.b.Take(c.whole(0), c.in(1), c.OwnAxis(0, axis));
  const auto at = groups.erase(groups.begin() + axis);
  groups.insert(at, c.b.rank(c.in(1)), 1);
  c.Set(0, chosen, std::move(groups));
}

void GatherElements(Call& c) {
  c.Set(0, c.b.Node("gather_elements", {c.in(0), Indices(c, 1)}, {{"axis", c.Int("axis", 0)}}));
}

void GatherNd(Call& c) {
  c.Set(0,
        c.b.Node("gather_nd", {c.in(0), Indices(c, 1)}, {{"batch_axes", c.Int("batch_dims", 0)}}));
}

void ScatterElements(Call& c) {
  c.Set(0, c.b.Node("scatter_elements", {c.in(0), Indices(c, 1), c.in(2)},
                    {{"axis", c.Int("axis", 0)}, {"reduction", c.Text("reduction", "none")}}));
}

void ScatterNd(Call& c) {
  c.Set(0, c.b.Node("scatter_nd", {c.in(0), Indices(c, 1), c.in(2)},
                    {{"reduction", c.Text("reduction", "none")}}));
}

void Compress(Call& c) {
  Id x = c.in(0);
  int64_t axis = 0;
  if (c.HasAttribute("axis")) {
    axis = c.b.Axis(c.Int("axis", 0), c.b.rank(x));
  } else {
    x = c.b.Reshape(x, {c.b.shape(x).elements()});
  }
  const Ints keep = c.Integers(1, "condition");
  if (static_cast<int64_t>(keep.size()) > c.b.shape(x)[static_cast<int>(axis)]) {
    FailInvalid("condition: longer than the axis");
  }
  Ints chosen;
  for (size_t i = 0; i < keep.size(); ++i) {
    if (keep[i] != 0) chosen.push_back(static_cast<int64_t>(i));
  }
  c.Set(0, c.b.Node("take", {x, c.b.Constant(TensorOf(chosen))}, {{"axis", axis}}));
}

void NonZero(Call& c) {
  const HostTensor x = c.Value(0, "the number of results");
  const std::vector<double> numbers = AsDoubles(x);
  const int rank = x.type.shape.rank();
  std::vector<Ints> found(rank);
  int64_t count = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == 0) continue;
    auto left = static_cast<int64_t>(i);
    for (int axis = rank - 1; axis >= 0; --axis) {
      found[axis].push_back(left % x.type.shape[axis]);
      left /= x.type.shape[axis];
    }
    ++count;
  }
  Ints all;
  for (const Ints& axis : found) all.insert(all.end(), axis.begin(), axis.end());
  c.Set(0, c.b.Reshape(c.b.Constant(TensorOf(all)), {rank, count}));
}

// How many results there are depends on the values, so they must be known at import.
void Unique(Call& c) {
  Builder& b = c.b;
  Id x = c.in(0);
  if (!c.HasAttribute("axis")) x = b.Reshape(x, {b.shape(x).elements()});
  const int axis = b.Axis(c.Int("axis", 0), b.rank(x));
  // Slices along the axis as rows.
  Ints order = AllAxes(b.rank(x));
  order.erase(order.begin() + axis);
  order.insert(order.begin(), axis);
  b.CheckNoMarks(x);
  const std::vector<double> values =
      AsDoubles(b.Evaluate(b.Transpose(x, order), "the number of results"));
  const int64_t slices = b.shape(x)[axis];
  const int64_t size = slices == 0 ? 0 : static_cast<int64_t>(values.size()) / slices;
  const auto compare = [&](int64_t i, int64_t k) {
    const double* a = values.data() + i * size;
    const double* z = values.data() + k * size;
    return std::lexicographical_compare(a, a + size, z, z + size);
  };
  Ints sorted = AllAxes(static_cast<int>(slices));
  std::stable_sort(sorted.begin(), sorted.end(), compare);
  std::vector<Ints> groups;
  for (const int64_t i : sorted) {
    if (groups.empty() || compare(groups.back()[0], i)) groups.emplace_back();
    groups.back().push_back(i);
  }
  if (c.Int("sorted", 1) == 0) std::sort(groups.begin(), groups.end());
  Ints firsts, inverse(static_cast<size_t>(slices)), counts;
  for (size_t g = 0; g < groups.size(); ++g) {
    firsts.push_back(groups[g][0]);
    counts.push_back(static_cast<int64_t>(groups[g].size()));
    for (const int64_t i : groups[g]) inverse[i] = static_cast<int64_t>(g);
  }
  const Id indices = b.Constant(TensorOf(firsts));
  c.Set(0, b.Node("take", {x, indices}, {{"axis", int64_t{axis}}}));
  c.Set(1, indices);
  c.Set(2, b.Constant(TensorOf(inverse)));
  c.Set(3, b.Constant(TensorOf(counts)));
}

constexpr std::string_view kAll = "all but text";
constexpr Rule kRules[] = {
    {"Compress", 9, kAll, Compress},
    {"Gather", 1, kAll, Gather},
    {"GatherElements", 11, kAll, GatherElements},
    {"GatherND", 11, kAll, GatherNd},
    {"NonZero", 9, kAll, NonZero},
    {"Scatter", 9, kAll, ScatterElements},
    {"ScatterElements", 11, kAll, ScatterElements},
    {"ScatterND", 11, kAll, ScatterNd},
    {"Unique", 11, kAll, Unique},
};

}  // namespace rules_index

std::span<const Rule> IndexRules() {
  return rules_index::kRules;
}

}  // namespace lepton::onnx
