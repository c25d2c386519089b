#include "runtime/ops/rope.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Status CheckFrequencies(const Attributes& attributes) {
  const std::string scaling = attributes.Text("scaling", "none");
  if (scaling != "none" && scaling != "linear" && scaling != "llama3") {
    return InvalidArgument("scaling is '" + scaling + "'; must be none, linear or llama3");
  }
  const double low = attributes.Float("low_freq_factor", 1);
  if (!(attributes.Float("base", 10000) > 0) || !(attributes.Float("factor", 1) > 0) ||
      !(low > 0) || !(attributes.Float("high_freq_factor", 4) > low) ||
      attributes.Int("original_context", 8192) < 1) {
    return InvalidArgument(
        "base, factor, low_freq_factor and original_context must be positive, and "
        "high_freq_factor above low_freq_factor");
  }
  return Status::Ok();
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
         "high_freq_factor", "original_context", "inverse"}));
    LEPTON_RETURN_IF_ERROR(CheckFrequencies(attributes));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const Attributes& a = node.attributes;
    if (node.inputs.size() == 2) {
      return InvalidArgument("rope with angles cannot be differentiated");
    }
    const int64_t size = a.Int("size", graph.type(node.inputs[0]).shape.back());
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("rope", {output_gradients[0]},
                                      {{"size", size},
                                       {"base", a.Float("base", 10000)},
                                       {"dims", a.Int("dims", size)},
                                       {"offset", a.Int("offset")},
                                       {"interleaved", a.Int("interleaved")},
                                       {"scaling", a.Text("scaling", "none")},
                                       {"factor", a.Float("factor", 1)},
                                       {"low_freq_factor", a.Float("low_freq_factor", 1)},
                                       {"high_freq_factor", a.Float("high_freq_factor", 4)},
                                       {"original_context", a.Int("original_context", 8192)},
                                       {"inverse", int64_t{a.Int("inverse") == 0}}}));
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
    LEPTON_RETURN_IF_ERROR(
        attributes.CheckNames({"dims", "base", "scaling", "factor", "low_freq_factor",
                               "high_freq_factor", "original_context"}));
    const int64_t dims = attributes.Int("dims");
    if (dims < 2 || dims % 2 != 0) {
      return InvalidArgument("dims is " + std::to_string(dims) + "; must be even and positive");
    }
    LEPTON_RETURN_IF_ERROR(CheckFrequencies(attributes));
    const Shape& positions = inputs[0].shape;
    return Types{{DType::kF32, Shape({positions[0], positions[1], dims})}};
  }
};

}  // namespace

std::vector<double> RopeFrequencies(int64_t dims, const Attributes& attributes) {
  const double base = attributes.Float("base", 10000);
  const double factor = attributes.Float("factor", 1);
  const std::string scaling = attributes.Text("scaling", "none");
  const double low = attributes.Float("low_freq_factor", 1);
  const double high = attributes.Float("high_freq_factor", 4);
  const auto context = static_cast<double>(attributes.Int("original_context", 8192));
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dims; i += 2) {
    double frequency = std::pow(base, -static_cast<double>(i) / static_cast<double>(dims));
    if (scaling == "linear") frequency /= factor;
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
