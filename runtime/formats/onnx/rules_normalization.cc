// Normalisations, by means and variances.
#include "runtime/formats/onnx/windows.h"

namespace lepton::onnx {
namespace rules_normalization {

// (x - mean) / sqrt(variance + epsilon) over `axes`; the two statistics keep extents of 1.
struct Normalised {
  Id value, mean, inverse;
};
Normalised Normalise(Builder& b, Id x, const Ints& axes, double epsilon) {
  const Id mean = b.Reduce("mean", x, axes);
  const Id centred = b.Sub(x, mean);
  const Id variance = b.Reduce("mean", b.Mul(centred, centred), axes);
  const Id inverse = b.Unary("reciprocal", b.Unary("sqrt", b.Add(variance, epsilon)));
  return {b.Mul(centred, inverse), mean, inverse};
}

// [channels] as [1, channels, 1...].
Id Channels(Builder& b, Id x, int rank) {
  if (rank < 2) FailInvalid("input 0 must have batch and channels");
  Ints extents(rank, 1);
  extents[1] = b.shape(x).elements();
  return b.Reshape(x, extents);
}

// Of f32 over the last axis, and without the statistics: an op of its own.
bool LayerNormRows(Call& c, const Ints& axes) {
  Builder& b = c.b;
  const Id x = c.whole(0);
  if (b.dtype(x) != DType::kF32 || axes.size() != 1 || b.rank(x) < 2 || IsEmpty(b.shape(x)) ||
      c.wants(1) || c.wants(2)) {
    return false;
  }
  const Shape row({b.shape(x).back()});
  const Id bias =
      c.has(2) ? c.in(2) : b.Constant(TensorOf(DType::kF32, row, std::vector<double>(row[0])));
  if (b.shape(c.in(1)) != row || b.shape(bias) != row) return false;
  c.Set(0, b.Node("layer_norm", {x, c.in(1), bias}, {{"epsilon", c.Float("epsilon", 1e-5)}}),
        c.groups(0));
  return true;
}

void LayerNormalization(Call& c) {
  Builder& b = c.b;
  Ints axes;
  const int rank = static_cast<int>(c.groups(0).size());
  for (int axis = b.Axis(c.Int("axis", -1), rank); axis < rank; ++axis) {
    axes.push_back(c.OwnAxis(0, axis));
  }
  if (LayerNormRows(c, axes)) return;
  const Id x = c.in(0);
  const DType type = b.dtype(x);
  const bool half = type == DType::kF16 || type == DType::kBF16;
  const Normalised n =
      Normalise(b, half ? b.Convert(x, DType::kF32) : x, axes, c.Float("epsilon", 1e-5));
  Id y = b.Mul(b.Convert(n.value, type), c.in(1));
  if (c.has(2)) y = b.Add(y, c.in(2));
  c.Set(0, y);
  c.Set(1, n.mean);
  c.Set(2, n.inverse);
}

void InstanceNormalization(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  Ints axes;
  for (int axis = 2; axis < b.rank(x); ++axis) axes.push_back(axis);
  const Id y = Normalise(b, x, axes, c.Float("epsilon", 1e-5)).value;
  c.Set(0, b.Add(b.Mul(y, Channels(b, c.in(1), b.rank(x))), Channels(b, c.in(2), b.rank(x))));
}

// Scale and bias are per channel; before operator set 21 per group.
void GroupNormalization(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const int rank = b.rank(x);
  const Ints extents = Extents(b.shape(x));
  const int64_t groups = c.Int("num_groups", 0);
  if (rank < 3) FailInvalid("input 0 must have batch, channels and at least one more axis");
  if (groups < 1 || extents[1] % groups != 0) {
    FailInvalid("num_groups: must divide the " + std::to_string(extents[1]) + " channels");
  }
  // [batch, groups, channels of a group, what is left]
  const Ints parted = {extents[0], groups, extents[1] / groups,
                       Product({extents.begin() + 2, extents.end()})};
  const bool half = b.dtype(x) == DType::kF16 || b.dtype(x) == DType::kBF16;
  const Id wide = half ? b.Convert(x, DType::kF32) : x;
  const Id value = Normalise(b, b.Reshape(wide, parted), {2, 3}, c.Float("epsilon", 1e-5)).value;
  const auto spread = [&](int input) {
    const Id v = half ? b.Convert(c.in(input), DType::kF32) : c.in(input);
    const int64_t wanted = c.version() < 21 ? groups : extents[1];
    if (b.shape(v) != Shape({wanted})) {
      FailInvalid("input " + std::to_string(input) + ": must have " + std::to_string(wanted) +
                  " elements");
    }
    return b.Reshape(v, {1, groups, wanted / groups, 1});
  };
  const Id y = b.Add(b.Mul(value, spread(1)), spread(2));
  c.Set(0, b.Convert(b.Reshape(y, extents), b.dtype(x)));
}

void MeanVarianceNormalization(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  Ints axes = c.List("axes", {0, 2, 3});
  const Id mean = b.Reduce("mean", x, axes);
  const Id centred = b.Sub(x, mean);
  const Id deviation = b.Unary("sqrt", b.Reduce("mean", b.Mul(centred, centred), axes));
  c.Set(0, b.Div(centred, b.Add(deviation, 1e-9)));
}

void BatchNormalization(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const int rank = b.rank(x);
  Id mean = c.in(3), variance = c.in(4);
  const bool training = c.Int("training_mode", 0) != 0;
  bool core = !training && b.dtype(x) == DType::kF32 && rank >= 2 && !IsEmpty(b.shape(x));
  for (int i = 1; i < 5; ++i) {
    core = core && b.type(c.in(i)) == TensorType{DType::kF32, Shape({b.shape(x)[1]})};
  }
  if (core) {
    return c.Set(0, b.Node("batch_norm", {x, c.in(1), c.in(2), mean, variance},
                           {{"epsilon", c.Float("epsilon", 1e-5)}, {"training", int64_t{0}}}));
  }
  if (training) {
    Ints axes = AllAxes(rank);
    if (rank < 2) FailInvalid("input 0 must have batch and channels");
    axes.erase(axes.begin() + 1);
    const Id batch_mean = b.Reduce("mean", x, axes);
    const Id centred = b.Sub(x, batch_mean);
    const Id batch_variance = b.Reduce("mean", b.Mul(centred, centred), axes);
    const double momentum = c.Float("momentum", 0.9);
    const Ints channels = {b.shape(x)[1]};
    const auto blend = [&](Id old, Id now) {
      return b.Add(b.Mul(old, momentum), b.Mul(b.Reshape(now, channels), 1 - momentum));
    };
    c.Set(1, blend(mean, batch_mean));
    c.Set(2, blend(variance, batch_variance));
    mean = b.Reshape(batch_mean, channels);
    variance = b.Reshape(batch_variance, channels);
  }
  const Id deviation =
      b.Unary("sqrt", b.Add(Channels(b, variance, rank), c.Float("epsilon", 1e-5)));
  const Id scaled =
      b.Mul(b.Div(b.Sub(x, Channels(b, mean, rank)), deviation), Channels(b, c.in(1), rank));
  c.Set(0, b.Add(scaled, Channels(b, c.in(2), rank)));
}

void Lrn(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const int64_t size = c.Int("size", 1);
  if (b.rank(x) < 3 || size < 1 || size > 1000000) FailInvalid("size: out of range");
  // The channels as the one spatial axis of a window.
  const Ints extents = Extents(b.shape(x));
  const int64_t inner = Product({extents.begin() + 2, extents.end()});
  const Id squares =
      b.Reshape(b.Transpose(b.Reshape(b.Mul(x, x), {extents[0], extents[1], inner}), {0, 2, 1}),
                {extents[0], inner, extents[1]});
  Windows w{{size}, {1}, {1}, {(size - 1) / 2}, {size - 1 - (size - 1) / 2}};
  const Id sums = b.Transpose(b.Reduce("sum", Unfold(b, squares, w, 0), {3}, false), {0, 2, 1});
  const Id base =
      b.Add(b.Mul(b.Reshape(sums, extents), c.Float("alpha", 1e-4) / static_cast<double>(size)),
            c.Float("bias", 1));
  c.Set(0, b.Div(x, b.Binary("pow", base, c.Float("beta", 0.75))));
}

void LpNormalization(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const Ints axis = {c.Int("axis", -1)};
  c.Set(0, b.Div(x, c.Int("p", 2) == 1 ? b.Reduce("l1", x, axis)
                                       : b.Unary("sqrt", b.Reduce("sum_square", x, axis))));
}

void Dropout(Call& c) {
  Builder& b = c.b;
  const Id x = c.whole(0);
  const bool training = c.version() >= 12 && c.has(2) && c.Number(2, "training_mode") != 0;
  const double ratio = c.version() < 12 ? 0 : c.has(1) ? c.Number(1, "ratio") : 0.5;
  if (training && ratio != 0) {
    FailUnsupported(
        "random numbers: dropout while training: export the model in eval mode, or with dropout 0");
  }
  c.SetRef(0, c.ref(0));
  c.Set(1, b.Expand(b.Scalar(DType::kBool, 1), b.shape(x)), c.groups(0));
}

constexpr std::string_view kFloats = "f16, bf16, f32, f64";
constexpr Rule kRules[] = {
    {"BatchNormalization", 9, kFloats, BatchNormalization},
    {"Dropout", 7, kFloats, Dropout},
    {"GroupNormalization", 18, kFloats, GroupNormalization},
    {"InstanceNormalization", 6, kFloats, InstanceNormalization},
    {"LRN", 1, kFloats, Lrn},
    {"LayerNormalization", 17, kFloats, LayerNormalization},
    {"LpNormalization", 1, kFloats, LpNormalization},
    {"MeanVarianceNormalization", 9, kFloats, MeanVarianceNormalization},
};

}  // namespace rules_normalization

std::span<const Rule> NormalizationRules() {
  return rules_normalization::kRules;
}

}  // namespace lepton::onnx
