#include <cmath>

#include "runtime/kernels/cpu/reference.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::kernels::reference {
namespace {

constexpr double kInverseSqrt2 = 0.70710678118654752440;
constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
constexpr double kSqrt2OverPi = 0.79788456080286535588;

template <typename Function>
void Unary(const KernelContext& context, Function function) {
  const auto x = context.input(0).span<const float>();
  float* y = context.output(0).as<float>();
  for (size_t i = 0; i < x.size(); ++i) y[i] = static_cast<float>(function(double{x[i]}));
}

template <typename Function>
void Binary(const KernelContext& context, Function function) {
  const auto a = context.input(0).span<const float>();
  const float* b = context.input(1).as<float>();
  float* y = context.output(0).as<float>();
  for (size_t i = 0; i < a.size(); ++i) {
    y[i] = static_cast<float>(function(double{a[i]}, double{b[i]}));
  }
}

}  // namespace

void Scale(const KernelContext& context) {
  const float factor = static_cast<float>(context.attributes().Float("factor", 1));
  Unary(context, [factor](double x) { return x * factor; });
}

void Fill(const KernelContext& context) {
  const float value = static_cast<float>(context.attributes().Float("value"));
  for (float& y : context.output(0).span<float>()) y = value;
}

void Cast(const KernelContext& context) {
  const TensorView& x = context.input(0);
  const TensorView& y = context.output(0);
  for (int64_t i = 0; i < x.elements(); ++i) {
    if (x.type.dtype == DType::kF32) {
      y.as<BF16>()[i] = BF16::FromFloat(x.as<float>()[i]);
    } else {
      y.as<float>()[i] = BF16::ToFloat(x.as<BF16>()[i]);
    }
  }
}

void BiasAdd(const KernelContext& context) {
  const auto x = context.input(0).span<const float>();
  const auto bias = context.input(1).span<const float>();
  float* y = context.output(0).as<float>();
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] + bias[i % bias.size()];
}

void Relu(const KernelContext& context) {
  Unary(context, [](double x) { return x > 0 || std::isnan(x) ? x : 0; });
}

void ReluGrad(const KernelContext& context) {
  Binary(context, [](double y, double dy) { return y > 0 ? dy : 0; });
}

void Gelu(const KernelContext& context) {
  Unary(context, [](double x) { return 0.5 * x * (1 + std::erf(x * kInverseSqrt2)); });
}

void GeluGrad(const KernelContext& context) {
  Binary(context, [](double x, double dy) {
    const double distribution = 0.5 * (1 + std::erf(x * kInverseSqrt2));
    return dy * (distribution + x * kInverseSqrt2Pi * std::exp(-0.5 * x * x));
  });
}

void GeluTanh(const KernelContext& context) {
  Unary(context, [](double x) {
    return 0.5 * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715 * x * x * x)));
  });
}

void GeluTanhGrad(const KernelContext& context) {
  Binary(context, [](double x, double dy) {
    const double t = std::tanh(kSqrt2OverPi * (x + 0.044715 * x * x * x));
    const double slope = kSqrt2OverPi * (1 + 3 * 0.044715 * x * x);
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope);
  });
}

void Silu(const KernelContext& context) {
  Unary(context, [](double x) { return x / (1 + std::exp(-x)); });
}

void SiluGrad(const KernelContext& context) {
  Binary(context, [](double x, double dy) {
    const double s = 1 / (1 + std::exp(-x));
    return dy * s * (1 + x * (1 - s));
  });
}

void Tanh(const KernelContext& context) {
  Unary(context, [](double x) { return std::tanh(x); });
}

void TanhGrad(const KernelContext& context) {
  Binary(context, [](double y, double dy) { return dy * (1 - y * y); });
}

void Sigmoid(const KernelContext& context) {
  Unary(context, [](double x) { return 1 / (1 + std::exp(-x)); });
}

void SigmoidGrad(const KernelContext& context) {
  Binary(context, [](double y, double dy) { return dy * y * (1 - y); });
}

void Dropout(const KernelContext& context) {
  const auto x = context.input(0).span<const float>();
  float* y = context.output(0).as<float>();
  const double rate = context.attributes().Float("rate");
  const float keep = static_cast<float>(1 / (1 - rate));
  const float threshold = static_cast<float>(rate);
  const graph::RunState& run = context.run();
  const RandomKey key{run.seed, static_cast<uint32_t>(context.attributes().Int("stream")), run.step,
                      run.shard};
  for (size_t i = 0; i < x.size(); ++i) {
    const uint32_t bits = RandomBlock(key, static_cast<uint32_t>(i / 4))[i % 4];
    y[i] = UniformFromBits(bits) >= threshold ? x[i] * keep : 0.0f;
  }
}

}  // namespace lepton::kernels::reference
