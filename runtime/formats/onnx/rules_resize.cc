// Resize: along each axis a product with a matrix of weights, which is known at import.
#include <algorithm>
#include <cmath>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_resize {

struct Interpolation {
  std::string mode, coordinates, nearest;
  double cubic = -0.75;
  bool exclude_outside = false;
  double outside = 0;  // for tf_crop_and_resize
};

// Where output `i` lies on the input's axis.
double Source(const Interpolation& how, int64_t i, int64_t in, int64_t out, double scale,
              double start, double end) {
  const auto x = static_cast<double>(i);
  if (how.coordinates == "asymmetric") return x / scale;
  if (how.coordinates == "align_corners") {
    return out == 1 ? 0 : x * static_cast<double>(in - 1) / static_cast<double>(out - 1);
  }
  if (how.coordinates == "pytorch_half_pixel" && out == 1) return 0;
  if (how.coordinates == "tf_crop_and_resize") {
    const auto last = static_cast<double>(in - 1);
    return out == 1 ? 0.5 * (start + end) * last
                    : start * last + x * (end - start) * last / static_cast<double>(out - 1);
  }
  if (how.coordinates == "half_pixel" || how.coordinates == "pytorch_half_pixel") {
    return (x + 0.5) / scale - 0.5;
  }
  if (how.coordinates == "half_pixel_symmetric") {
    // The same about the middle, where the output is cut to whole pixels.
    const double whole = scale * static_cast<double>(in);
    const double offset = static_cast<double>(in) / 2 * (1 - static_cast<double>(out) / whole);
    return offset + (x + 0.5) / scale - 0.5;
  }
  FailUnsupported("coordinate_transformation_mode " + how.coordinates);
}

int64_t Nearest(const Interpolation& how, double x) {
  if (how.nearest == "round_prefer_floor") return static_cast<int64_t>(std::ceil(x - 0.5));
  if (how.nearest == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5));
  if (how.nearest == "floor") return static_cast<int64_t>(std::floor(x));
  if (how.nearest == "ceil") return static_cast<int64_t>(std::ceil(x));
  FailUnsupported("nearest_mode " + how.nearest);
}

double CubicWeight(double distance, double a) {
  const double d = std::fabs(distance);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

// A row of weights over the input's axis.
void AddWeights(const Interpolation& how, double x, int64_t in, double* row) {
  const auto at = [in](int64_t i) { return std::clamp<int64_t>(i, 0, in - 1); };
  if (how.mode == "nearest") {
    row[at(Nearest(how, x))] = 1;
    return;
  }
  const auto base = static_cast<int64_t>(std::floor(x));
  const int64_t first = how.mode == "cubic" ? base - 1 : base;
  const int64_t last = how.mode == "cubic" ? base + 2 : base + 1;
  double total = 0;
  for (int64_t i = first; i <= last; ++i) {
    const double distance = x - static_cast<double>(i);
    const double weight = how.mode == "cubic" ? CubicWeight(distance, how.cubic)
                                              : std::max(0.0, 1 - std::fabs(distance));
    if (how.exclude_outside && (i < 0 || i >= in)) continue;
    row[at(i)] += weight;
    total += weight;
  }
  for (int64_t i = 0; how.exclude_outside && total != 0 && i < in; ++i) row[i] /= total;
}

Id ResizeAxis(Builder& b, Id x, int axis, int64_t out, double scale, const Interpolation& how,
              double start, double end) {
  const int64_t in = b.shape(x)[axis];
  if (in < 1 || out < 0 || out > (int64_t{1} << 24) || in * out > (int64_t{1} << 27)) {
    FailInvalid("sizes: out of range");
  }
  std::vector<double> weights(static_cast<size_t>(in * out), 0);
  std::vector<double> missing(static_cast<size_t>(out), 0);
  for (int64_t i = 0; i < out; ++i) {
    const double at = Source(how, i, in, out, scale, start, end);
    const bool outside =
        how.coordinates == "tf_crop_and_resize" && (at < 0 || at > static_cast<double>(in - 1));
    if (outside) {
      missing[i] = how.outside;
    } else {
      AddWeights(how, at, in, weights.data() + i * in);
    }
  }
  Ints order = AllAxes(b.rank(x));
  std::swap(order[axis], order.back());
  // The axis last: x [..., in] times the transposed weights [in, out].
  const DType type = b.dtype(x);
  const Id matrix = b.Transpose(b.Constant(TensorOf(type, Shape({out, in}), weights)), {1, 0});
  Id y = b.Transpose(x, order);
  y = b.Matmul(y, matrix);
  y = b.Add(y, b.Constant(TensorOf(type, Shape({out}), missing)));
  return b.Transpose(y, order);
}

// What is interpolated in, and back to the type that it was: the specification's own
// implementation cuts integers towards zero. Beyond the ends of the type they stay at them.
DType TypeBetween(DType type) {
  if (!IsFloating(type)) return DType::kF64;
  return type == DType::kF64 ? type : DType::kF32;
}
Id CutTo(Builder& b, Id x, DType type) {
  if (b.dtype(x) == type) return x;
  if (!IsFloating(type)) {
    // Sums of weights that are 1 give a little less at times: 99.99999999999999 is 100.
    constexpr double kSlack = 1e-9;
    x = b.Add(x, b.Mul(b.Unary("sign", x), kSlack));
  }
  return b.Convert(x, type);
}

// The length that a scale gives: of the whole axis, or of the box of it that is cut out.
int64_t Scaled(int64_t extent, double scale, double part) {
  const double length = static_cast<double>(extent) * part * scale;
  return static_cast<int64_t>(std::floor(std::max(0.0, length) + 1e-9));
}

// An open axis can only stay as long as it is.
double ScaleOf(int64_t extent, int64_t size) {
  if (extent < 0 && size == Builder::ToMark(extent)) return 1;
  if (extent < 0) FailUnsupported("resizing an open axis");
  if (Builder::IsMark(size)) FailUnsupported("resizing to an open extent");
  return static_cast<double>(size) / static_cast<double>(extent);
}

void Resize(Call& c) {
  Builder& b = c.b;
  Id x = c.in(0);
  const DType type = b.dtype(x);
  Interpolation how{c.Text("mode", "nearest"),
                    c.Text("coordinate_transformation_mode", "half_pixel"),
                    c.Text("nearest_mode", "round_prefer_floor"),
                    c.Float("cubic_coeff_a", -0.75),
                    c.Int("exclude_outside", 0) != 0,
                    c.Float("extrapolation_value", 0)};
  if (how.mode != "nearest" && how.mode != "linear" && how.mode != "cubic") {
    FailUnsupported("mode " + how.mode);
  }
  if (c.Int("antialias", 0) != 0) FailUnsupported("antialias");
  Ints axes = c.List("axes", AllAxes(b.rank(x)));
  for (int64_t& axis : axes) axis = b.Axis(axis, b.rank(x));
  const size_t n = axes.size();
  std::vector<double> box, scales;
  if (how.coordinates == "tf_crop_and_resize") box = AsDoubles(c.Value(1, "roi"));
  if (how.coordinates == "tf_crop_and_resize" && box.size() != 2 * n) {
    FailInvalid("roi: must have two numbers per axis");
  }
  if (c.has(2)) scales = AsDoubles(c.Value(2, "scales"));
  Ints sizes;
  if (c.has(3)) {
    sizes = c.Marked(3, "sizes");
    if (sizes.size() != n) FailInvalid("sizes: must have one number per axis");
    for (size_t i = 0; i < n; ++i) {
      scales.push_back(ScaleOf(b.shape(x)[static_cast<int>(axes[i])], sizes[i]));
    }
    const std::string policy = c.Text("keep_aspect_ratio_policy", "stretch");
    if (policy != "stretch" && b.shape(x).open()) {
      FailUnsupported("keep_aspect_ratio_policy " + policy + " with an open axis");
    }
    if (policy != "stretch") {
      const double scale = policy == "not_larger" ? *std::min_element(scales.begin(), scales.end())
                                                  : *std::max_element(scales.begin(), scales.end());
      for (size_t i = 0; i < n; ++i) {
        scales[i] = scale;
        sizes[i] = static_cast<int64_t>(
            std::floor(scale * static_cast<double>(b.shape(x)[static_cast<int>(axes[i])]) + 0.5));
      }
    }
  }
  if (scales.size() != n) FailInvalid("scales: must have one number per axis");
  if (how.mode != "nearest") x = b.Convert(x, TypeBetween(type));
  for (size_t i = 0; i < n; ++i) {
    const int axis = static_cast<int>(axes[i]);
    if (!(scales[i] > 0 && scales[i] < 1e6)) FailInvalid("scales: must be above 0");
    const bool crop = !box.empty();
    const double part = crop ? box[i + n] - box[i] : 1;
    const int64_t in = b.shape(x)[axis];
    const int64_t out = sizes.empty() ? Scaled(in, scales[i], part) : sizes[i];
    if (!crop && scales[i] == 1 && (in < 0 || out == in)) continue;
    if (in < 0) FailUnsupported("resizing an open axis");
    x = ResizeAxis(b, x, axis, out, scales[i], how, crop ? box[i] : 0, crop ? box[i + n] : 1);
  }
  c.Set(0, how.mode == "nearest" ? x : CutTo(b, x, type));
}

constexpr Rule kRules[] = {
    {"Resize", 11, "all numbers", Resize},
};

}  // namespace rules_resize

std::span<const Rule> ResizeRules() {
  return rules_resize::kRules;
}

}  // namespace lepton::onnx
