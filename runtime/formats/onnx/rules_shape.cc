// Operators that move elements without computing.
#include <algorithm>
#include <optional>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_shape {

// What of `from` the other axes leave for the one that is to be inferred; none when that is a part
// of an open extent.
std::optional<Size> InferSize(const Ints& from, const std::vector<Size>& others) {
  Size have, used;
  for (const int64_t extent : from) {
    if (extent < 0) have.open.push_back(extent);
    if (extent >= 0) have.number = Product({have.number, extent});
  }
  for (const Size& size : others) {
    used.number = Product({used.number, size.number});
    for (const int64_t extent : size.open) {
      const auto found = std::find(have.open.begin(), have.open.end(), extent);
      if (found == have.open.end()) return std::nullopt;
      have.open.erase(found);
    }
  }
  if (have.open.empty()) return Size{used.number == 0 ? 0 : have.number / used.number};
  if (used.number == 0 || have.number % used.number != 0) return std::nullopt;
  have.number /= used.number;
  std::sort(have.open.begin(), have.open.end());
  return have;
}

// A reshape moves nothing, so that joined axes may be read as what they are, and axes joined.
void SetView(Call& c, Id x, const std::vector<Size>& wanted) {
  const Ints from = Extents(c.b.shape(x));
  if (std::all_of(wanted.begin(), wanted.end(), [](const Size& size) { return size.plain(); })) {
    Ints extents;
    for (const Size& size : wanted) extents.push_back(size.extent());
    return c.Set(0, c.b.Reshape(x, std::move(extents)));
  }
  std::optional<View> view = ViewAs(from, wanted);
  if (!view) FailJoined(Shape(from));
  c.Set(0, c.b.Reshape(x, std::move(view->extents)), std::move(view->groups));
}

void Reshape(Call& c) {
  const Id x = c.whole(0);
  const Ints from = Extents(c.b.shape(x));
  const std::vector<Size> axes = SizesOf(c.b, c.ref(0));
  std::vector<Size> wanted;
  if (c.version() < 5) {
    for (const int64_t extent : c.List("shape")) wanted.push_back({extent});
  } else {
    wanted = c.Sizes(1, "shape");
  }
  const bool zero_is_zero = c.Int("allowzero", 0) != 0;
  int inferred = -1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const int64_t extent = wanted[i].number;  // of an open one at least 1
    if (extent == -1) {
      if (inferred >= 0) FailInvalid("shape: at most one -1");
      inferred = static_cast<int>(i);
    } else if (extent < 0) {
      FailInvalid("shape: a negative extent");
    } else if (extent == 0 && !zero_is_zero) {
      if (i >= axes.size()) FailInvalid("shape: a 0 beyond the input's axes");
      wanted[i] = axes[i];
    }
  }
  if (inferred >= 0) {
    std::vector<Size> others = wanted;
    others.erase(others.begin() + inferred);
    const std::optional<Size> size = InferSize(from, others);
    if (!size) FailJoined(Shape(from));
    wanted[inferred] = *size;
  }
  SetView(c, x, wanted);
}

// [axes before, axes from there on], each as one.
void Flatten(Call& c) {
  const std::vector<Size> axes = SizesOf(c.b, c.ref(0));
  const int64_t given = c.Int("axis", 1);
  const int rank = static_cast<int>(axes.size());
  const int axis = given == rank ? rank : c.b.Axis(given, rank);
  std::vector<Size> wanted(2);
  for (int i = 0; i < rank; ++i) {
    Size& size = wanted[i < axis ? 0 : 1];
    size.number = Product({size.number, axes[i].number});
    size.open.insert(size.open.end(), axes[i].open.begin(), axes[i].open.end());
    std::sort(size.open.begin(), size.open.end());
  }
  SetView(c, c.whole(0), wanted);
}

void Squeeze(Call& c) {
  std::vector<Size> axes = SizesOf(c.b, c.ref(0)), kept;
  bool given = false;
  const Ints gone = c.Axes(13, 1, static_cast<int>(axes.size()), &given);
  for (size_t i = 0; i < axes.size(); ++i) {
    const bool one = axes[i].open.empty() && axes[i].number == 1;
    const bool named = std::find(gone.begin(), gone.end(), static_cast<int64_t>(i)) != gone.end();
    if (given && named && !one) FailInvalid("axes: only extents of 1 can be squeezed");
    if (!named || !one) kept.push_back(axes[i]);
  }
  SetView(c, c.whole(0), kept);
}

void Unsqueeze(Call& c) {
  Ints added = c.version() >= 13 ? c.Integers(1, "axes") : c.List("axes");
  std::vector<Size> axes = SizesOf(c.b, c.ref(0));
  const int full = static_cast<int>(axes.size() + added.size());
  for (int64_t& axis : added) axis = c.b.Axis(axis, full);
  std::sort(added.begin(), added.end());
  if (std::adjacent_find(added.begin(), added.end()) != added.end()) {
    FailInvalid("axes: must name each axis once");
  }
  for (const int64_t axis : added) axes.insert(axes.begin() + axis, Size{});
  SetView(c, c.whole(0), axes);
}

void Transpose(Call& c) {
  const Id x = c.whole(0);
  const Groups groups = c.groups(0);
  const int rank = static_cast<int>(groups.size());
  Ints order = AllAxes(rank), own;
  std::reverse(order.begin(), order.end());
  order = c.List("perm", order);
  Groups moved;
  for (const int64_t axis : order) {
    if (axis < 0 || axis >= rank) FailInvalid("perm: must name every axis once");
    moved.push_back(groups[axis]);
    const int first = FirstOf(groups, static_cast<int>(axis));
    for (int i = 0; i < groups[axis]; ++i) own.push_back(first + i);
  }
  c.Set(0, c.b.Transpose(x, own), std::move(moved));
}

void Concat(Call& c) {
  std::vector<Id> inputs;
  for (int i = 0; i < c.inputs(); ++i) {
    const bool same = c.groups(i) == c.groups(0);
    inputs.push_back(same ? c.whole(i) : c.in(i));
    if (!same) c.in(0);
  }
  c.Set(0, c.b.Concat(std::move(inputs), c.OwnAxis(0, c.Int("axis", 1))), c.groups(0));
}

void Split(Call& c) {
  const Id x = c.whole(0);
  const int axis = c.OwnAxis(0, c.Int("axis", 0));
  const int64_t extent = c.b.shape(x)[axis];
  if (extent < 0) FailUnsupported("splitting an open axis");
  Ints sizes = c.version() < 13 ? c.List("split") : c.has(1) ? c.Integers(1, "split") : Ints{};
  const int parts = c.outputs();
  if (sizes.empty()) {
    const int64_t size = (extent + parts - 1) / parts;
    for (int i = 0; i < parts; ++i) {
      sizes.push_back(std::clamp<int64_t>(extent - i * size, 0, size));
    }
  }
  if (static_cast<int>(sizes.size()) != parts) {
    FailInvalid("split: must have one size per output");
  }
  int64_t start = 0;
  for (int i = 0; i < parts; ++i) {
    if (sizes[i] < 0 || sizes[i] > extent - start) FailInvalid("split: sizes do not add up");
    c.Set(i, c.b.Slice(x, axis, start, 1, sizes[i]), c.groups(0));
    start += sizes[i];
  }
}

// All of it, or its first or its last element, which an axis has whatever its length. Of other
// slices the length says how much there is.
void SliceOpenAxis(Builder& b, Id& x, int axis, int64_t start, int64_t end, int64_t step) {
  constexpr int64_t kSmall = 1 << 20;
  const int64_t own = Builder::ToMark(b.shape(x)[axis]);
  const bool to_end = end == own || (end > own && !Builder::IsMark(end));
  if (start == 0 && to_end && step == 1) return;
  Ints chosen;
  const bool front = start >= 0 && end >= 0 && end < kSmall && step > 0;
  const bool back =
      start < 0 && start > -kSmall && (to_end || (end < 0 && end > start)) && step > 0;
  if (!front && !back) FailUnsupported("this slice of an open axis");
  for (int64_t i = start; i < (back && to_end ? 0 : end); i += step) chosen.push_back(i);
  if (chosen.empty()) FailUnsupported("an empty slice of an open axis");
  if (chosen.size() > 1 || (chosen[0] != 0 && chosen[0] != -1)) {
    FailUnsupported("this slice of an open axis, which is there if the axis is long enough");
  }
  x = b.Take(x, b.Constant(TensorOf(chosen)), axis);
}

void SliceAxis(Builder& b, Id& x, int axis, int64_t start, int64_t end, int64_t step) {
  const int64_t extent = b.shape(x)[axis];
  if (step == 0 || step == INT64_MIN) FailInvalid("steps: must not be 0");
  if (Builder::IsMark(start)) FailUnsupported("a slice from an open extent on");
  if (extent < 0) return SliceOpenAxis(b, x, axis, start, end, step);
  if (Builder::IsMark(end)) {
    if (start != 0 || step != 1) FailUnsupported("a slice by an open extent, not from 0 on");
    x = b.Take(x, b.Positions(Builder::FromMark(end)), axis);
    return;
  }
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  int64_t count = 0;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    end = std::clamp<int64_t>(end, 0, extent);
    count = end > start ? (end - start - 1) / step + 1 : 0;
  } else {
    start = std::clamp<int64_t>(start, -1, extent - 1);
    end = std::clamp<int64_t>(end, -1, extent - 1);
    count = start > end ? (start - end - 1) / -step + 1 : 0;
  }
  x = b.Slice(x, axis, start, step, count);
}

// Of a slice before operator set 10. They may lie far beyond the axis.
Ints Bounds(const Call& c, std::string_view name) {
  const auto* list = c.Find(name);
  return list == nullptr ? Ints{} : Ints(list->ints().begin(), list->ints().end());
}

void Slice(Call& c) {
  Id x = c.whole(0);
  const bool inputs = c.version() >= 10;
  const Ints starts = inputs ? c.Marked(1, "starts") : Bounds(c, "starts");
  const Ints ends = inputs ? c.Marked(2, "ends") : Bounds(c, "ends");
  Ints axes = inputs ? (c.has(3) ? c.Integers(3, "axes") : Ints{}) : c.List("axes");
  if (axes.empty()) axes = AllAxes(static_cast<int>(starts.size()));
  const Ints steps = inputs && c.has(4) ? c.Integers(4, "steps") : Ints(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size()) {
    FailInvalid("starts, ends, axes and steps must be as many");
  }
  for (size_t i = 0; i < starts.size(); ++i) {
    SliceAxis(c.b, x, c.OwnAxis(0, axes[i]), starts[i], ends[i], steps[i]);
  }
  c.Set(0, x, c.groups(0));
}

void Expand(Call& c) {
  const Ref& x = c.ref(0);
  const Groups own = c.groups(0);
  const Shape shape = c.b.shape(c.whole(0));
  const std::vector<Size> from = SizesOf(c.b, x);
  std::vector<Size> wanted = c.Sizes(1, "shape");
  if (wanted.size() < from.size()) {
    wanted.insert(wanted.begin(), from.size() - wanted.size(), Size{});
  }
  const size_t added = wanted.size() - from.size();
  Ints extents;
  Groups groups;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i].number < 0) FailInvalid("shape: a negative extent");
    const bool same = i >= added && wanted[i].open == from[i - added].open &&
                      wanted[i].number == from[i - added].number;
    const bool one = wanted[i].open.empty() && wanted[i].number == 1;
    Ints factors = FactorsOf(wanted[i]);
    if (i >= added && (same || one)) {
      const int axis = static_cast<int>(i - added);
      const auto begin = shape.extents().begin() + FirstOf(own, axis);
      factors.assign(begin, begin + own[axis]);
    }
    groups.push_back(static_cast<int>(factors.size()));
    extents.insert(extents.end(), factors.begin(), factors.end());
  }
  const Id spread = Spread(c.b, x, groups);
  c.Set(0, c.b.Expand(spread, Shape(std::move(extents))), std::move(groups));
}

void Tile(Call& c) {
  Id x = c.in(0);
  const Ints repeats = c.Marked(1, "repeats");
  const Ints extents = Extents(c.b.shape(x));
  if (repeats.size() != extents.size()) FailInvalid("repeats: must have one number per axis");
  Ints split, wide, whole;
  for (size_t i = 0; i < extents.size(); ++i) {
    const int64_t times = Builder::FromMark(repeats[i]);
    if (times < 0 && !Builder::IsMark(repeats[i])) FailInvalid("repeats: must not be negative");
    const bool once = times == 1 || extents[i] == 1;
    if (!once) split.push_back(1);
    if (!once) wide.push_back(times);
    split.push_back(extents[i]);
    wide.push_back(times == 1 ? extents[i] : extents[i] == 1 ? times : extents[i]);
    whole.push_back(c.b.Merged({times, extents[i]}));
  }
  c.Set(0, c.b.Reshape(c.b.Expand(c.b.Reshape(x, split), Shape(wide)), whole));
}

// Which element each one of a padded axis comes from.
Ints PadSource(Builder& b, int64_t extent, int64_t before, int64_t after, const std::string& mode) {
  if (extent < 0) FailUnsupported("padding an open axis, mode " + mode);
  if (extent == 0) FailInvalid("pads: an empty axis has nothing to pad with, mode " + mode);
  // Each is within the axis or the limits, so that their sum is a number.
  b.CheckElements(std::max(before, after), DType::kI64);
  before = std::max(before, -extent);
  after = std::max(after, -extent);
  b.CheckElements(extent + before + after, DType::kI64);
  Ints source;
  const int64_t period = std::max<int64_t>(1, 2 * (extent - 1));
  for (int64_t i = -before; i < extent + after; ++i) {
    int64_t at = std::clamp<int64_t>(i, 0, extent - 1);
    if (mode == "wrap") at = ((i % extent) + extent) % extent;
    if (mode == "reflect") {
      at = ((i % period) + period) % period;
      at = std::min(at, period - at);
    }
    source.push_back(extent == 1 ? 0 : at);
  }
  return source;
}

void Pad(Call& c) {
  Id x = c.in(0);
  const int rank = c.b.rank(x);
  const Ints pads = c.version() < 11 ? c.List("pads") : c.Integers(1, "pads");
  Ints axes = c.has(3) ? c.Integers(3, "axes") : AllAxes(rank);
  if (pads.size() != 2 * axes.size()) FailInvalid("pads: must have two numbers per axis");
  Ints before(rank, 0), after(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    before[c.b.Axis(axes[i], rank)] = pads[i];
    after[c.b.Axis(axes[i], rank)] = pads[i + axes.size()];
  }
  const std::string mode = c.Text("mode", "constant");
  if (mode == "constant") {
    const Id value = c.version() < 11 ? c.b.Like(x, c.Float("value", 0))
                     : c.has(2)       ? c.b.Reshape(c.in(2), {})
                                      : c.b.Like(x, 0);
    return c.Set(0, c.b.Node("pad_constant", {x, value}, {{"before", before}, {"after", after}}));
  }
  if (mode != "reflect" && mode != "edge" && mode != "wrap") FailUnsupported("mode " + mode);
  for (int axis = 0; axis < rank; ++axis) {
    if (before[axis] == 0 && after[axis] == 0) continue;
    const Id source =
        c.b.Constant(TensorOf(PadSource(c.b, c.b.shape(x)[axis], before[axis], after[axis], mode)));
    x = c.b.Node("take", {x, source}, {{"axis", int64_t{axis}}});
  }
  c.Set(0, x);
}

void DepthToSpace(Call& c) {
  const Id x = c.in(0);
  const int64_t s = c.Int("blocksize", 1);
  const Ints e = Extents(c.b.shape(x));
  if (e.size() != 4 || s < 1 || e[1] % (s * s) != 0) FailInvalid("blocksize: does not divide");
  const int64_t depth = e[1] / (s * s);
  const bool crd = c.Text("mode", "DCR") == "CRD";
  const Id parts =
      crd ? c.b.Transpose(c.b.Reshape(x, {e[0], depth, s, s, e[2], e[3]}), {0, 1, 4, 2, 5, 3})
          : c.b.Transpose(c.b.Reshape(x, {e[0], s, s, depth, e[2], e[3]}), {0, 3, 4, 1, 5, 2});
  c.Set(0, c.b.Reshape(parts, {e[0], depth, e[2] * s, e[3] * s}));
}

void SpaceToDepth(Call& c) {
  const Id x = c.in(0);
  const int64_t s = c.Int("blocksize", 1);
  const Ints e = Extents(c.b.shape(x));
  if (e.size() != 4 || s < 1 || e[2] % s != 0 || e[3] % s != 0) {
    FailInvalid("blocksize: does not divide");
  }
  const Id parts =
      c.b.Transpose(c.b.Reshape(x, {e[0], e[1], e[2] / s, s, e[3] / s, s}), {0, 3, 5, 1, 2, 4});
  c.Set(0, c.b.Reshape(parts, {e[0], e[1] * s * s, e[2] / s, e[3] / s}));
}

void CenterCropPad(Call& c) {
  Id x = c.in(0);
  const Ints sizes = c.Integers(1, "shape");
  Ints axes = c.List("axes", AllAxes(c.b.rank(x)));
  if (axes.size() != sizes.size()) FailInvalid("shape: must have one number per axis");
  for (size_t i = 0; i < axes.size(); ++i) {
    const int axis = c.b.Axis(axes[i], c.b.rank(x));
    const int64_t extent = c.b.shape(x)[axis];
    if (sizes[i] < 0 || sizes[i] > (int64_t{1} << 31)) FailInvalid("shape: must not be negative");
    if (sizes[i] <= extent) {
      x = c.b.Slice(x, axis, (extent - sizes[i]) / 2, 1, sizes[i]);
    } else {
      Ints before(c.b.rank(x), 0), after(c.b.rank(x), 0);
      before[axis] = (sizes[i] - extent) / 2;
      after[axis] = sizes[i] - extent - before[axis];
      x = c.b.Pad(x, before, after, 0);
    }
  }
  c.Set(0, x);
}

void Trilu(Call& c) {
  const Id x = c.in(0);
  const int rank = c.b.rank(x);
  if (rank < 2) FailInvalid("must have at least two axes");
  const int64_t k = c.has(1) ? c.Integers(1, "k").at(0) : 0;
  const Id row = c.b.Positions(c.b.shape(x)[rank - 2]);
  const Id column = c.b.Positions(c.b.shape(x).back());
  const Id distance = c.b.Sub(c.b.Unsqueeze(column, {0}), c.b.Unsqueeze(row, {1}));
  const Id kept = c.b.Binary(c.Int("upper", 1) != 0 ? "greater_equal" : "less_equal", distance,
                             static_cast<double>(k));
  c.Set(0, c.b.Select(kept, x, c.b.Like(x, 0)));
}

constexpr std::string_view kAll = "all but text";
constexpr Rule kRules[] = {
    {"CenterCropPad", 18, kAll, CenterCropPad},
    {"Concat", 4, kAll, Concat},
    {"DepthToSpace", 1, kAll, DepthToSpace},
    {"Expand", 8, kAll, Expand},
    {"Flatten", 1, kAll, Flatten},
    {"Pad", 2, kAll, Pad},
    {"Reshape", 1, kAll, Reshape},
    {"Slice", 1, kAll, Slice},
    {"SpaceToDepth", 1, kAll, SpaceToDepth},
    {"Split", 2, kAll, Split},
    {"Squeeze", 1, kAll, Squeeze},
    {"Tile", 6, kAll, Tile},
    {"Transpose", 1, kAll, Transpose},
    {"Trilu", 14, kAll, Trilu},
    {"Unsqueeze", 1, kAll, Unsqueeze},
};

}  // namespace rules_shape

std::span<const Rule> ShapeRules() {
  return rules_shape::kRules;
}

}  // namespace lepton::onnx
