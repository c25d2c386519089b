// Operators that choose elements by index.
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace {

Id Indices(Call& c, int input) {
  return c.b.Convert(c.in(input), DType::kI64);
}

void Gather(Call& c) {
  c.Set(0, c.b.Node("take", {c.in(0), Indices(c, 1)}, {{"axis", c.Int("axis", 0)}}));
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
};

}  // namespace

std::span<const Rule> IndexRules() {
  return kRules;
}

}  // namespace lepton::onnx
