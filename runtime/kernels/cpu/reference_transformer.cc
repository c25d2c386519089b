#include <cmath>

#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cpu/reference.h"
#include "runtime/ops/rope.h"

namespace lepton::kernels::reference {
namespace {

double Dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

// Of one query of one head: where its rows are, and its scores.
struct QueryView {
  QueryView(const AttentionShape& s, int64_t image, int64_t head, int64_t query)
      : query(query),
        at(s.QueryOffset(image, head, query)),
        k_at(s.KeyOffset(image, head / s.group(), 0)),
        v_at(s.ValueOffset(image, head / s.group(), 0)),
        y_at(s.OutputOffset(image, head, query)),
        bias_at(image * s.keys),
        row((image * s.heads + head) * s.queries + query) {}
  std::vector<double> Scores(const AttentionShape& s, const float* q, const float* k,
                             const float* bias) const {
    std::vector<double> scores;
    for (int64_t j = s.FirstKey(query); j < s.EndKey(query); ++j) {
      const double extra = bias == nullptr ? 0.0 : double{bias[bias_at + j]};
      scores.push_back(s.scale * Dot(q + at, k + k_at + j * s.kv_pitch, s.size) + extra);
    }
    return scores;
  }
  int64_t query, at, k_at, v_at, y_at, bias_at, row;
};

template <typename Body>
void ForQueries(const AttentionShape& s, const Body& body) {
  for (int64_t image = 0; image < s.batch; ++image) {
    for (int64_t head = 0; head < s.heads; ++head) {
      for (int64_t query = 0; query < s.queries; ++query) body(QueryView(s, image, head, query));
    }
  }
}

void AttentionOf(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape s(context, places);
  const auto input = [&](int i) { return context.input(i).as<float>(); };
  const float* bias = context.inputs() > places.bias ? input(places.bias) : nullptr;
  ForQueries(s, [&](const QueryView& view) {
    const std::vector<double> scores = view.Scores(s, input(places.q), input(places.k), bias);
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - top);
    for (int64_t c = 0; c < s.size; ++c) {
      double y = 0;
      for (size_t j = 0; j < scores.size(); ++j) {
        const int64_t key = s.FirstKey(view.query) + static_cast<int64_t>(j);
        y += std::exp(scores[j] - top) / sum * input(places.v)[view.v_at + key * s.kv_pitch + c];
      }
      context.output(0).as<float>()[view.y_at + c] = static_cast<float>(y);
    }
    context.output(1).as<float>()[view.row] = static_cast<float>(top + std::log(sum));
  });
}

// Number i of f32 or bf16.
double NumberAt(const TensorView& view, int64_t i) {
  return view.type.dtype == DType::kBF16 ? BF16::ToFloat(view.as<BF16>()[i]) : view.as<float>()[i];
}

// With p = exp(score - log_sum): dv = p dy, dscore = p (dy v - dy y), dq = scale dscore k and
// dk = scale dscore q.
void AttentionGradOf(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape s(context, places);
  const auto input = [&](int i) { return context.input(i).as<float>(); };
  const float* bias = context.inputs() > places.bias ? input(places.bias) : nullptr;
  std::vector<std::vector<double>> sums(context.outputs());
  for (int i = 0; i < context.outputs(); ++i) sums[i].resize(context.output(i).elements());
  ForQueries(s, [&](const QueryView& view) {
    const std::vector<double> scores = view.Scores(s, input(places.q), input(places.k), bias);
    const float* dy = input(places.dy) + view.y_at;
    const double dot_y = Dot(dy, input(places.y) + view.y_at, s.size);
    for (size_t j = 0; j < scores.size(); ++j) {
      const int64_t row = (s.FirstKey(view.query) + static_cast<int64_t>(j)) * s.kv_pitch;
      const int64_t k = view.k_at + row, v = view.v_at + row;
      const double p = std::exp(scores[j] - input(places.log_sum)[view.row]);
      const double dscore = s.scale * p * (Dot(dy, input(places.v) + v, s.size) - dot_y);
      for (int64_t c = 0; c < s.size; ++c) {
        sums[places.dq][view.at + c] += dscore * input(places.k)[k + c];
        sums[places.dk][k + c] += dscore * input(places.q)[view.at + c];
        sums[places.dv][v + c] += p * dy[c];
      }
    }
  });
  for (int i = 0; i < context.outputs(); ++i) {
    float* out = context.output(i).as<float>();
    for (size_t j = 0; j < sums[i].size(); ++j) out[j] = static_cast<float>(sums[i][j]);
  }
}

}  // namespace

void Attention(const KernelContext& context) {
  AttentionOf(context, kAttentionPlaces);
}
// A slot has the keys' rows, then the values', each [capacity, kv_heads * d].
void CachedAttention(const KernelContext& context) {
  AttentionShape s(context, kCachedPlaces);
  s.causal = true;
  const TensorView &k = context.input(1), &v = context.input(2), &cache = context.input(5);
  const TensorView& y = context.output(0);
  const int64_t capacity = context.attributes().Int("capacity");
  const int64_t pitch = s.kv_heads * s.size;
  const auto element = static_cast<int64_t>(DTypeSize(k.type.dtype));
  const auto store = [&](int64_t at, double value) {
    if (y.type.dtype == DType::kBF16) {
      y.as<BF16>()[at] = BF16::FromFloat(static_cast<float>(value));
    } else {
      y.as<float>()[at] = static_cast<float>(value);
    }
  };
  for (int64_t text = 0; text < s.batch; ++text) {
    const int64_t slot = context.input(3).as<int32_t>()[text];
    const int64_t before = context.input(4).as<int32_t>()[text];
    const int64_t keys_at = slot * cache.shape()[1], values_at = keys_at + capacity * pitch;
    if (slot >= 0) {
      const int64_t from = text * s.queries * pitch * element, bytes = s.queries * pitch * element;
      std::memcpy(cache.as<char>() + (keys_at + before * pitch) * element, k.as<char>() + from,
                  bytes);
      std::memcpy(cache.as<char>() + (values_at + before * pitch) * element, v.as<char>() + from,
                  bytes);
    }
    s.keys = before + s.queries;
    for (int64_t row = 0; row < s.queries * s.heads; ++row) {
      const int64_t query = row / s.heads, head = row % s.heads;
      const int64_t at = s.QueryOffset(text, head, query);
      const int64_t column = head / s.group() * s.size;
      std::vector<double> scores;
      for (int64_t j = s.FirstKey(query); slot >= 0 && j < s.EndKey(query); ++j) {
        double sum = 0;
        for (int64_t c = 0; c < s.size; ++c) {
          sum += NumberAt(context.input(0), at + c) *
                 NumberAt(cache, keys_at + j * pitch + column + c);
        }
        scores.push_back(s.scale * sum);
      }
      double top = -INFINITY, total = 0;
      for (const double score : scores) top = std::max(top, score);
      for (const double score : scores) total += std::exp(score - top);
      for (int64_t c = 0; c < s.size; ++c) {
        double sum = 0;
        for (size_t j = 0; j < scores.size(); ++j) {
          const int64_t key = s.FirstKey(query) + static_cast<int64_t>(j);
          sum += std::exp(scores[j] - top) / total *
                 NumberAt(cache, values_at + key * pitch + column + c);
        }
        store(at + c, sum);
      }
    }
  }
}

void AttentionGrad(const KernelContext& context) {
  AttentionGradOf(context, kGradPlaces);
}
void PackedAttention(const KernelContext& context) {
  AttentionOf(context, kPackedPlaces);
}
void PackedAttentionGrad(const KernelContext& context) {
  AttentionGradOf(context, kPackedGradPlaces);
}

void Rope(const KernelContext& context) {
  const Shape& shape = context.input(0).shape();
  const int64_t d = context.attributes().Int("size", shape.back());
  const int64_t heads = shape.back() / d;
  const int64_t positions = shape[shape.rank() - 2];
  const int64_t dims = context.attributes().Int("dims", d);
  const bool interleaved = context.attributes().Int("interleaved") != 0;
  const double sign = context.attributes().Int("inverse") != 0 ? -1 : 1;
  const double magnitude = context.attributes().Float("magnitude", 1);
  const auto offset = static_cast<double>(context.attributes().Int("offset"));
  const float* angles = context.inputs() == 2 ? context.input(1).as<float>() : nullptr;
  std::vector<double> frequencies;
  if (angles == nullptr) frequencies = ops::RopeFrequencies(dims, context.attributes());
  for (int64_t head = 0; head < shape.rows() * heads; ++head) {
    const int64_t row = head / heads;
    const float* x = context.input(0).as<float>() + head * d;
    float* y = context.output(0).as<float>() + head * d;
    std::copy(x, x + d, y);
    for (int64_t i = 0; i < dims / 2; ++i) {
      double cosine = 0, sine = 0;
      if (angles != nullptr) {
        cosine = angles[row * dims + i];
        sine = angles[row * dims + dims / 2 + i];
      } else {
        const double angle =
            sign * (offset + static_cast<double>(row % positions)) * frequencies[i];
        cosine = magnitude * std::cos(angle);
        sine = magnitude * std::sin(angle);
      }
      const int64_t first = interleaved ? 2 * i : i;
      const int64_t second = interleaved ? 2 * i + 1 : i + dims / 2;
      y[first] = static_cast<float>(x[first] * cosine - x[second] * sine);
      y[second] = static_cast<float>(x[second] * cosine + x[first] * sine);
    }
  }
}

void RopeAngles(const KernelContext& context) {
  const int64_t dims = context.attributes().Int("dims");
  const std::vector<double> frequencies = ops::RopeFrequencies(dims, context.attributes());
  const double magnitude = context.attributes().Float("magnitude", 1);
  for (int64_t row = 0; row < context.input(0).elements(); ++row) {
    const double position = context.input(0).as<int32_t>()[row];
    float* angles = context.output(0).as<float>() + row * dims;
    for (int64_t i = 0; i < dims / 2; ++i) {
      angles[i] = static_cast<float>(magnitude * std::cos(position * frequencies[i]));
      angles[dims / 2 + i] = static_cast<float>(magnitude * std::sin(position * frequencies[i]));
    }
  }
}

void RmsNorm(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const float* gain = context.input(1).as<float>();
  const double epsilon = context.attributes().Float("epsilon", 1e-6);
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    float* y = context.output(0).as<float>() + row * n;
    const double rstd = 1 / std::sqrt(Dot(x, x, n) / static_cast<double>(n) + epsilon);
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * rstd * gain[i]);
    context.output(1).as<float>()[row] = static_cast<float>(rstd);
  }
}

// With h = x * rstd and g = dy * gain: dx = rstd * (g - h * mean(g * h)).
void RmsNormGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const float* gain = context.input(1).as<float>();
  std::vector<double> gain_gradient(n);
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    const float* dy = context.input(3).as<float>() + row * n;
    float* dx = context.output(0).as<float>() + row * n;
    const double rstd = context.input(2).as<float>()[row];
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) {
      mean += double{dy[i]} * gain[i] * x[i] * rstd / static_cast<double>(n);
      gain_gradient[i] += dy[i] * x[i] * rstd;
    }
    for (int64_t i = 0; i < n; ++i) {
      dx[i] = static_cast<float>(rstd * (double{dy[i]} * gain[i] - x[i] * rstd * mean));
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    context.output(1).as<float>()[i] = static_cast<float>(gain_gradient[i]);
  }
}

}  // namespace lepton::kernels::reference
