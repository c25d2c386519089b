// Training steps of the preview domain: R, T, then per weight its value, gradient and state. R may
// be of another type.
#include <cmath>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_optimizer {

// The number of weights, when each comes with `parts` inputs.
int Weights(Call& c, int parts) {
  if (c.inputs() < 2 + parts || (c.inputs() - 2) % parts != 0) {
    FailInvalid("must have " + std::to_string(parts) + " inputs per weight");
  }
  return (c.inputs() - 2) / parts;
}

void Momentum(Call& c) {
  Builder& b = c.b;
  const int n = Weights(c, 3);
  const double alpha = c.Float("alpha", 0), norm = c.Float("norm_coefficient", 0);
  const double beta = c.Number(1, "T") > 0 ? c.Float("beta", 0) : 1;
  const bool nesterov = c.Text("mode", "standard") == "nesterov";
  for (int i = 0; i < n; ++i) {
    const Id x = c.in(2 + i);
    const Id gradient = b.Add(c.in(2 + n + i), b.Mul(x, norm));
    const Id velocity = b.Add(b.Mul(c.in(2 + 2 * n + i), alpha), b.Mul(gradient, beta));
    const Id step = nesterov ? b.Add(gradient, b.Mul(velocity, alpha)) : velocity;
    c.Set(i, b.Sub(x, b.Mul(step, b.Convert(c.in(0), b.dtype(x)))));
    c.Set(n + i, velocity);
  }
}

void Adam(Call& c) {
  Builder& b = c.b;
  const int n = Weights(c, 4);
  // The specification says 1e-6, published models and test cases were made with 1e-2.
  if (!c.HasAttribute("epsilon")) FailUnsupported("Adam that does not say its epsilon");
  const double alpha = c.Float("alpha", 0.9), beta = c.Float("beta", 0.999);
  const double t = c.Number(1, "T");
  const double correction = t > 0 ? std::sqrt(1 - std::pow(beta, t)) / (1 - std::pow(alpha, t)) : 1;
  const double norm = c.Float("norm_coefficient", 0), post = c.Float("norm_coefficient_post", 0);
  for (int i = 0; i < n; ++i) {
    const Id x = c.in(2 + i);
    const Id gradient = b.Add(c.in(2 + n + i), b.Mul(x, norm));
    const Id first = b.Add(b.Mul(c.in(2 + 2 * n + i), alpha), b.Mul(gradient, 1 - alpha));
    const Id second =
        b.Add(b.Mul(c.in(2 + 3 * n + i), beta), b.Mul(b.Mul(gradient, gradient), 1 - beta));
    const Id step = b.Div(first, b.Add(b.Unary("sqrt", second), c.Float("epsilon", 1e-6)));
    const Id rate = b.Convert(c.in(0), b.dtype(x));
    const Id moved = b.Sub(x, b.Mul(b.Mul(step, correction), rate));
    c.Set(i, b.Mul(moved, 1 - post));
    c.Set(n + i, first);
    c.Set(2 * n + i, second);
  }
}

constexpr std::string_view kDomain = "ai.onnx.preview.training";
constexpr Rule kRules[] = {
    {"Adam", 1, "f32, f64", Adam, kDomain},
    {"Momentum", 1, "f32, f64", Momentum, kDomain},
};

}  // namespace rules_optimizer

std::span<const Rule> OptimizerRules() {
  return rules_optimizer::kRules;
}

}  // namespace lepton::onnx
