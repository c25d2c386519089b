#include "runtime/ops/general/unary_math.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lepton::ops::general {
namespace {

constexpr std::string_view kFloating[] = {
    "abs",   "acos",    "acosh", "asin", "asinh", "atan", "atanh", "ceil",
    "cos",   "cosh",    "erf",   "exp",  "floor", "log",  "neg",   "reciprocal",
    "round", "sigmoid", "sign",  "sin",  "sinh",  "sqrt", "tan",   "tanh"};
constexpr std::string_view kTests[] = {"is_nan", "is_inf", "is_pos_inf", "is_neg_inf"};
constexpr std::string_view kInteger[] = {"abs", "neg", "sign", "bit_not"};

bool IsTest(std::string_view name) {
  return std::find(std::begin(kTests), std::end(kTests), name) != std::end(kTests);
}

class UnaryMath final : public DifferentiableOp {
 public:
  UnaryMath() : DifferentiableOp("unary_math") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"function"}));
    const std::string function = attributes.Text("function");
    const DType dtype = inputs[0].dtype;
    const auto known = UnaryFunctions(dtype);
    if (std::find(known.begin(), known.end(), function) == known.end()) {
      return InvalidArgument("no function '" + function + "' of " + std::string(DTypeName(dtype)));
    }
    return Types{{IsTest(function) ? DType::kBool : dtype, inputs[0].shape}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const std::string function = node.attributes.Text("function");
    const ValueId x = node.inputs[0], y = node.outputs[0], dy = output_gradients[0];
    if (graph.type(x).dtype != DType::kF32) {
      return InvalidArgument("unary_math " + function + " of " + graph.type(x).ToString() +
                             " has no gradient: only f32 has one");
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId slope, Slope(graph, function, x, y));
    if (slope == kNoValue) return Gradients{kNoValue};  // a step: flat wherever it is smooth
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx, graph.Add("mul", {dy, slope}));
    return Gradients{dx};
  }

 private:
  static Result<ValueId> Unary(Graph& graph, const char* function, ValueId x) {
    return graph.Add("unary_math", {x}, {{"function", function}});
  }
  static Result<ValueId> Scaled(Graph& graph, double factor, ValueId x) {
    return graph.Add("scale", {x}, {{"factor", factor}});
  }

  // dy/dx; kNoValue where it is 0 everywhere.
  static Result<ValueId> Slope(Graph& graph, const std::string& function, ValueId x, ValueId y) {
    if (function == "exp") return y;
    if (function == "neg") return graph.Add("fill", {x}, {{"value", -1.0}});
    if (function == "abs") return Unary(graph, "sign", x);
    if (function == "log") return Unary(graph, "reciprocal", x);
    if (function == "cos") {
      LEPTON_ASSIGN_OR_RETURN(const ValueId sine, Unary(graph, "sin", x));
      return Unary(graph, "neg", sine);
    }
    if (function == "sin") return Unary(graph, "cos", x);
    if (function == "sqrt") {
      LEPTON_ASSIGN_OR_RETURN(const ValueId inverse, Unary(graph, "reciprocal", y));
      return Scaled(graph, 0.5, inverse);
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId square, graph.Add("mul", {function == "erf" ? x : y,
                                                                    function == "erf" ? x : y}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId minus, Unary(graph, "neg", square));
    if (function == "reciprocal") return minus;
    if (function == "tanh") return OnePlus(graph, minus);
    if (function == "sigmoid") return graph.Add("add", {y, minus});
    if (function == "erf") {
      LEPTON_ASSIGN_OR_RETURN(const ValueId bell, Unary(graph, "exp", minus));
      return Scaled(graph, 2 / std::sqrt(std::numbers::pi), bell);
    }
    for (const char* step : {"ceil", "floor", "round", "sign"}) {
      if (function == step) return kNoValue;
    }
    return InvalidArgument("unary_math " + function + " has no gradient");
  }

  static Result<ValueId> OnePlus(Graph& graph, ValueId x) {
    LEPTON_ASSIGN_OR_RETURN(const ValueId one, graph.Add("fill", {x}, {{"value", 1.0}}));
    return graph.Add("add", {one, x});
  }
};

}  // namespace

const graph::Op& UnaryMathOp() {
  static const UnaryMath op;
  return op;
}

std::vector<std::string_view> UnaryFunctions(DType dtype) {
  if (dtype == DType::kBool) return {"not"};
  if (!IsFloating(dtype)) return {std::begin(kInteger), std::end(kInteger)};
  std::vector<std::string_view> names(std::begin(kFloating), std::end(kFloating));
  names.insert(names.end(), std::begin(kTests), std::end(kTests));
  return names;
}

}  // namespace lepton::ops::general
