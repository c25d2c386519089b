// Losses.
#include <optional>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_loss {

// The negative log likelihood of log_probabilities [batch, classes, axes...] at targets [batch,
// axes...].
void NegativeLogLikelihood(Call& c, Id log_probabilities, Id targets, std::optional<Id> weights) {
  Builder& b = c.b;
  const Shape shape = b.shape(log_probabilities);
  if (shape.rank() < 2 || b.rank(targets) != shape.rank() - 1) {
    FailInvalid("targets must have the input's axes without the classes");
  }
  const DType type = b.dtype(log_probabilities);
  targets = b.Convert(targets, DType::kI64);
  Id kept = b.Expand(b.Scalar(DType::kBool, 1), b.shape(targets));
  if (c.HasAttribute("ignore_index")) {
    kept =
        b.Unary("not", b.Binary("equal", targets, static_cast<double>(c.Int("ignore_index", 0))));
  }
  const Id safe = b.Select(kept, targets, b.Like(targets, 0));
  const Id chosen = b.Squeeze(b.Node("gather_elements", {log_probabilities, b.Unsqueeze(safe, {1})},
                                     {{"axis", int64_t{1}}}),
                              {1});
  const Id zero = b.Scalar(type, 0);
  const Id ones = b.Expand(b.Scalar(type, 1), b.shape(targets));
  const Id weight = b.Select(
      kept, weights ? b.Node("take", {*weights, safe}, {{"axis", int64_t{0}}}) : ones, zero);
  const Id loss = b.Mul(b.Unary("neg", b.Select(kept, chosen, zero)), weight);
  const std::string reduction = c.Text("reduction", "mean");
  const Ints axes = AllAxes(b.rank(loss));
  if (reduction == "none") return c.Set(0, loss);
  const Id sum = b.Reduce("sum", loss, axes, false);
  if (reduction == "sum") return c.Set(0, sum);
  c.Set(0, b.Div(sum, b.Reduce("sum", weight, axes, false)));
}

std::optional<Id> Weights(Call& c) {
  return c.has(2) ? std::optional<Id>(c.in(2)) : std::nullopt;
}

void NegativeLogLikelihoodLoss(Call& c) {
  NegativeLogLikelihood(c, c.in(0), c.in(1), Weights(c));
}

void SoftmaxCrossEntropyLoss(Call& c) {
  const Id log_probabilities = c.b.LogSoftmax(c.in(0), 1);
  NegativeLogLikelihood(c, log_probabilities, c.in(1), Weights(c));
  c.Set(1, log_probabilities);
}

constexpr std::string_view kFloats = "f32, f64";
constexpr Rule kRules[] = {
    {"NegativeLogLikelihoodLoss", 12, kFloats, NegativeLogLikelihoodLoss},
    {"SoftmaxCrossEntropyLoss", 12, kFloats, SoftmaxCrossEntropyLoss},
};

}  // namespace rules_loss

std::span<const Rule> LossRules() {
  return rules_loss::kRules;
}

}  // namespace lepton::onnx
