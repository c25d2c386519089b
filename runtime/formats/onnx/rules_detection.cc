// Operators of vision models: sampling, boxes.
#include <algorithm>
#include <cmath>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_detection {

// Reflects x into [low, high]: a triangle wave. 0 when there is no room.
Id Reflect(Builder& b, Id x, double low, double high) {
  const double span = high - low;
  if (span <= 0) return b.Mul(x, 0.0);
  const Id phase = b.Binary("mod", b.Unary("abs", b.Add(x, -low)), 2 * span);
  const Id back = b.Add(b.Unary("neg", phase), 2 * span);
  return b.Add(b.Binary("min", phase, back), low);
}

struct GridSampler {
  Builder& b;
  std::string padding;
  bool corners;
  Id image;  // [batch, height * width, channels]
  int64_t batch, height, width, channels, points;

  // A coordinate in pixels brought inside where the padding says so.
  Id Settle(Id x, int64_t extent) const {
    const double most = static_cast<double>(extent - 1);
    if (padding == "reflection") {
      x = corners ? Reflect(b, x, 0, most) : Reflect(b, x, -0.5, most + 0.5);
    }
    if (padding == "zeros") return x;
    return b.Binary("min", b.Binary("max", x, 0.0), most);
  }

  // The pixels at whole coordinates [batch, points]; 0 outside.
  Id Pixels(Id x, Id y) const {
    const auto inside = [&](Id at, int64_t extent) {
      return b.Binary("and", b.Binary("greater_equal", at, 0.0),
                      b.Binary("less_equal", at, static_cast<double>(extent - 1)));
    };
    const Id column = Settle(x, width), row = Settle(y, height);
    const Id valid = b.Binary("and", inside(column, width), inside(row, height));
    const Id zero = b.Like(x, 0);
    const Id position = b.Add(b.Mul(b.Select(valid, row, zero), static_cast<double>(width)),
                              b.Select(valid, column, zero));
    const Id indices =
        b.Reshape(b.Convert(b.Unary("round", position), DType::kI64), {batch, points, 1});
    const Id found = b.Node("gather_nd", {image, indices}, {{"batch_axes", int64_t{1}}});
    return b.Select(b.Unsqueeze(valid, {-1}), found, b.Like(found, 0));
  }

  // The weight of the pixel at `offset` from the one below, `t` in [0, 1) being the rest.
  Id Weight(Id t, int offset, bool cubic) const {
    if (!cubic) return offset == 0 ? b.Add(b.Unary("neg", t), 1.0) : t;
    constexpr double kA = -0.75;
    const Id d = b.Unary("abs", b.Add(t, static_cast<double>(-offset)));
    const Id d2 = b.Mul(d, d);
    if (offset == 0 || offset == 1) {
      return b.Add(b.Mul(d2, b.Add(b.Mul(d, kA + 2), -(kA + 3))), 1.0);
    }
    return b.Add(b.Mul(d, b.Add(b.Mul(d, b.Add(b.Mul(d, kA), -5 * kA)), 8 * kA)), -4 * kA);
  }

  Id Sample(Id x, Id y, const std::string& mode) const {
    if (mode == "nearest") return Pixels(b.Unary("round", x), b.Unary("round", y));
    const bool cubic = mode == "bicubic";
    const Id left = b.Unary("floor", x), top = b.Unary("floor", y);
    const Id tx = b.Sub(x, left), ty = b.Sub(y, top);
    Id sum = graph::kNoValue;
    for (int i = cubic ? -1 : 0; i <= (cubic ? 2 : 1); ++i) {
      for (int j = cubic ? -1 : 0; j <= (cubic ? 2 : 1); ++j) {
        const Id pixels =
            Pixels(b.Add(left, static_cast<double>(j)), b.Add(top, static_cast<double>(i)));
        const Id weight = b.Mul(Weight(ty, i, cubic), Weight(tx, j, cubic));
        const Id term = b.Mul(pixels, b.Unsqueeze(weight, {-1}));
        sum = sum == graph::kNoValue ? term : b.Add(sum, term);
      }
    }
    return sum;
  }
};

void GridSample(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const Id grid = c.in(1);
  if (b.rank(x) != 4 || b.rank(grid) != 4 || b.shape(grid)[3] != 2 ||
      b.shape(grid)[0] != b.shape(x)[0] || b.dtype(grid) != b.dtype(x) ||
      b.shape(x).elements() == 0) {
    FailInvalid("inputs must be [n, c, h, w] and [n, h, w, 2] of one type");
  }
  std::string mode = c.Text("mode", c.version() < 20 ? "bilinear" : "linear");
  if (c.version() >= 20 && (mode == "linear" || mode == "cubic")) mode = "bi" + mode;
  const std::string padding = c.Text("padding_mode", "zeros");
  if (mode != "bilinear" && mode != "nearest" && mode != "bicubic") FailInvalid("mode " + mode);
  if (padding != "zeros" && padding != "border" && padding != "reflection") {
    FailInvalid("padding_mode " + padding);
  }
  const Shape in = b.shape(x), out = b.shape(grid);
  const int64_t points = out[1] * out[2];
  const Id image = b.Reshape(b.Transpose(x, {0, 2, 3, 1}), {in[0], in[2] * in[3], in[1]});
  const GridSampler sampler{
      b, padding, c.Int("align_corners", 0) != 0, image, in[0], in[2], in[3], in[1], points};
  const auto pixels = [&](int64_t part, int64_t extent) {
    const Id at = b.Reshape(b.Slice(grid, 3, part, 1, 1), {in[0], points});
    const double n = static_cast<double>(extent);
    // -1 and 1 are the centres of the outer pixels, or their outer edges.
    const Id pixel = sampler.corners ? b.Mul(b.Add(at, 1.0), (n - 1) / 2)
                                     : b.Add(b.Mul(b.Add(at, 1.0), n / 2), -0.5);
    return mode == "bicubic" ? pixel : sampler.Settle(pixel, extent);
  };
  const Id y = sampler.Sample(pixels(0, in[3]), pixels(1, in[2]), mode);
  c.Set(0, b.Transpose(b.Reshape(y, {in[0], out[1], out[2], in[1]}), {0, 3, 1, 2}));
}

struct Box {
  double y1, x1, y2, x2;
  double area() const { return (y2 - y1) * (x2 - x1); }
};

Box ReadBox(const double* at, bool centred) {
  if (centred) {
    return {at[1] - at[3] / 2, at[0] - at[2] / 2, at[1] + at[3] / 2, at[0] + at[2] / 2};
  }
  return {std::min(at[0], at[2]), std::min(at[1], at[3]), std::max(at[0], at[2]),
          std::max(at[1], at[3])};
}

double Overlap(const Box& a, const Box& b) {
  const double height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const double width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (height <= 0 || width <= 0) return 0;
  return height * width / (a.area() + b.area() - height * width);
}

// How many boxes remain depends on their values, so they must be known at import.
void NonMaxSuppression(Call& c) {
  const HostTensor boxes = c.Value(0, "the number of boxes");
  const HostTensor scores = c.Value(1, "the number of boxes");
  const Shape& shape = scores.type.shape;
  if (boxes.type.shape.rank() != 3 || shape.rank() != 3 || boxes.type.shape[2] != 4 ||
      boxes.type.shape[0] != shape[0] || boxes.type.shape[1] != shape[2]) {
    FailInvalid("inputs must be [batches, boxes, 4] and [batches, classes, boxes]");
  }
  const int64_t most = c.has(2) ? c.Integers(2, "max_output_boxes_per_class").at(0) : 0;
  const double overlap = c.has(3) ? c.Number(3, "iou_threshold") : 0;
  const double least = c.has(4) ? c.Number(4, "score_threshold") : -INFINITY;
  const bool centred = c.Int("center_point_box", 0) != 0;
  const std::vector<double> corners = AsDoubles(boxes), values = AsDoubles(scores);
  Ints selected;
  for (int64_t row = 0; row < shape[0] * shape[1]; ++row) {
    const double* score = values.data() + row * shape[2];
    const double* first = corners.data() + row / shape[1] * shape[2] * 4;
    Ints order = AllAxes(static_cast<int>(shape[2]));
    std::erase_if(order, [&](int64_t i) { return !(score[i] > least); });
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    std::vector<Box> kept;
    for (const int64_t i : order) {
      if (static_cast<int64_t>(kept.size()) >= most) break;
      const Box box = ReadBox(first + i * 4, centred);
      if (std::any_of(kept.begin(), kept.end(),
                      [&](const Box& other) { return Overlap(box, other) > overlap; })) {
        continue;
      }
      kept.push_back(box);
      selected.insert(selected.end(), {row / shape[1], row % shape[1], i});
    }
  }
  const auto count = static_cast<int64_t>(selected.size()) / 3;
  c.Set(0, c.b.Reshape(c.b.Constant(TensorOf(selected)), {count, 3}));
}

constexpr Rule kRules[] = {
    {"GridSample", 16, "f32, f64", GridSample},
    {"NonMaxSuppression", 10, "f32", NonMaxSuppression},
};

}  // namespace rules_detection

std::span<const Rule> DetectionRules() {
  return rules_detection::kRules;
}

}  // namespace lepton::onnx
