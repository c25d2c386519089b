#include "runtime/ops/rope.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

constexpr double kBase = 10000, kFactor = 1, kLow = 1, kHigh = 4, kFast = 32, kSlow = 1;
constexpr int64_t kOriginalContext = 8192;

Status CheckYarn(const Attributes& attributes) {
  const double slow = attributes.Float("beta_slow", kSlow);
  if (attributes.Float("base", kBase) > 1 && slow > 0 &&
      attributes.Float("beta_fast", kFast) >= slow) {
    return Status::Ok();
  }
  return InvalidArgument(
      "base must be above 1, beta_slow positive and beta_fast at least beta_slow");
}

Status CheckFactors(int64_t dims, const Attributes& attributes) {
  const std::vector<double> factors = attributes.Floats("factors");
  const bool positive =
      std::all_of(factors.begin(), factors.end(), [](double factor) { return factor > 0; });
  if (positive && static_cast<int64_t>(factors.size()) == dims / 2) return Status::Ok();
  return InvalidArgument("factors has " + std::to_string(factors.size()) + " numbers; must have " +
                         std::to_string(dims / 2) + " above 0");
}

Status CheckFrequencies(int64_t dims, const Attributes& attributes) {
  const std::string scaling = attributes.Text("scaling", "none");
  const auto scalings = {"none", "linear", "llama3", "yarn", "longrope"};
  if (std::find(scalings.begin(), scalings.end(), scaling) == scalings.end()) {
    return InvalidArgument("scaling is '" + scaling +
                           "'; must be none, linear, llama3, yarn or longrope");
  }
  const double low = attributes.Float("low_freq_factor", kLow);
  if (!(attributes.Float("base", kBase) > 0) || !(attributes.Float("factor", kFactor) > 0) ||
      !(low > 0) || !(attributes.Float("high_freq_factor", kHigh) > low) ||
      attributes.Int("original_context", kOriginalContext) < 1 ||
      !(attributes.Float("magnitude", 1) > 0)) {
    return InvalidArgument(
        "base, factor, low_freq_factor, original_context and magnitude must be positive, and "
        "high_freq_factor above low_freq_factor");
  }
  if (scaling == "yarn") return CheckYarn(attributes);
  return scaling == "longrope" ? CheckFactors(dims, attributes) : Status::Ok();
}

class Rope final : public DifferentiableOp {
 public:
  Rope() : DifferentiableOp("rope") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 2) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, inputs[0].dtype));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    const Shape& x = inputs[0].shape;
    const int64_t size = attributes.Int("size", x.back());
    const int64_t dims = attributes.Int("dims", size);
    if (size < 1 || x.back() % size != 0 || dims < 2 || dims > size || dims % 2 != 0) {
      return InvalidArgument("the last axis of " + x.ToString() +
                             " must be a multiple of size, and dims even and at most size");
    }
    if (inputs.size() == 2) {
      LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"size", "dims", "interleaved"}));
      std::vector<int64_t> rows = x.extents();
      rows.back() = dims;
      LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {DType::kF32, Shape(std::move(rows))}));
      return Types{inputs[0]};
    }
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames(
        {"size", "base", "dims", "offset", "interleaved", "scaling", "factor", "low_freq_factor",
         "high_freq_factor", "original_context", "beta_fast", "beta_slow", "truncate", "factors",
         "magnitude", "limit", "inverse"}));
    const int64_t limit = attributes.Int("limit"), rows = x[x.rank() - 2];
    if (limit > 0 && rows > limit - attributes.Int("offset")) {
      return InvalidArgument("the text has " + std::to_string(rows) +
                             " tokens; the model has positions for " +
                             std::to_string(limit - attributes.Int("offset")));
    }
    LEPTON_RETURN_IF_ERROR(CheckFrequencies(dims, attributes));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const Attributes& a = node.attributes;
    if (node.inputs.size() == 2) {
      return InvalidArgument("rope with angles cannot be differentiated");
    }
    Attributes back = a;
    back.Set("inverse", int64_t{a.Int("inverse") == 0});
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("rope", {output_gradients[0]}, std::move(back)));
    return Gradients{dx};
  }
};

class RopeAngles final : public OpWithoutGradient {
 public:
  RopeAngles() : OpWithoutGradient("rope_angles") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, DType::kI32, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames(
        {"dims", "base", "scaling", "factor", "low_freq_factor", "high_freq_factor",
         "original_context", "beta_fast", "beta_slow", "truncate", "factors", "magnitude"}));
    const int64_t dims = attributes.Int("dims");
    if (dims < 2 || dims % 2 != 0) {
      return InvalidArgument("dims is " + std::to_string(dims) + "; must be even and positive");
    }
    LEPTON_RETURN_IF_ERROR(CheckFrequencies(dims, attributes));
    const Shape& positions = inputs[0].shape;
    return Types{{DType::kF32, Shape({positions[0], positions[1], dims})}};
  }
};

// What the frequency of each pair is multiplied with: from 1 to 1 / factor.
std::vector<double> YarnStretches(int64_t dims, const Attributes& attributes) {
  const double factor = attributes.Float("factor", kFactor);
  const auto context = static_cast<double>(attributes.Int("original_context", kOriginalContext));
  // The pair, as a fraction, that turns so often in the original context.
  const auto pair_of = [&](double turns) {
    return static_cast<double>(dims) * std::log(context / (turns * 2 * M_PI)) /
           (2 * std::log(attributes.Float("base", kBase)));
  };
  double first = pair_of(attributes.Float("beta_fast", kFast));
  double last = pair_of(attributes.Float("beta_slow", kSlow));
  if (attributes.Int("truncate", 1) != 0) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(dims - 1));
  if (last == first) last += 0.001;
  std::vector<double> stretches;
  for (int64_t pair = 0; pair < dims / 2; ++pair) {
    const double share = std::clamp((static_cast<double>(pair) - first) / (last - first), 0.0, 1.0);
    stretches.push_back(share / factor + (1 - share));
  }
  return stretches;
}

}  // namespace

std::vector<double> RopeFrequencies(int64_t dims, const Attributes& attributes) {
  const double base = attributes.Float("base", kBase);
  const double factor = attributes.Float("factor", kFactor);
  const std::string scaling = attributes.Text("scaling", "none");
  const double low = attributes.Float("low_freq_factor", kLow);
  const double high = attributes.Float("high_freq_factor", kHigh);
  const auto context = static_cast<double>(attributes.Int("original_context", kOriginalContext));
  const std::vector<double> factors = attributes.Floats("factors");
  std::vector<double> stretches;
  if (scaling == "yarn") stretches = YarnStretches(dims, attributes);
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dims; i += 2) {
    const auto pair = static_cast<size_t>(i / 2);
    double frequency = std::pow(base, -static_cast<double>(i) / static_cast<double>(dims));
    if (scaling == "linear") frequency /= factor;
    if (scaling == "longrope") frequency /= factors[pair];
    if (scaling == "yarn") frequency *= stretches[pair];
    if (scaling == "llama3") {
      // Turns within the original context: few are slowed down, many are left alone.
      const double turns = context * frequency / (2 * M_PI);
      const double keep = std::min(1.0, std::max(0.0, (turns - low) / (high - low)));
      frequency *= keep + (1 - keep) / factor;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

const graph::Op& RopeOp() {
  static const Rope op;
  return op;
}

const graph::Op& RopeAnglesOp() {
  static const RopeAngles op;
  return op;
}

}  // namespace lepton::ops
