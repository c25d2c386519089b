#include "runtime/ops/general/binary_math.h"

#include <algorithm>

#include "runtime/ops/broadcast_to.h"
#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

constexpr std::string_view kNumbers[] = {"add", "sub", "mul", "div", "min",
                                         "max", "pow", "mod", "fmod"};
constexpr std::string_view kOrders[] = {"less", "less_equal", "greater", "greater_equal"};
constexpr std::string_view kIntegers[] = {"shift_left", "shift_right", "bit_and", "bit_or",
                                          "bit_xor"};
constexpr std::string_view kLogical[] = {"and", "or", "xor"};

bool IsOrder(std::string_view name) {
  return std::find(std::begin(kOrders), std::end(kOrders), name) != std::end(kOrders);
}

// dy goes to `a` where the condition, else to `b`.
Result<Gradients> SplitBy(Graph& graph, ValueId condition, ValueId dy, ValueId a, ValueId b) {
  LEPTON_ASSIGN_OR_RETURN(const ValueId zero, graph.Add("fill", {dy}, {{"value", 0.0}}));
  LEPTON_ASSIGN_OR_RETURN(const ValueId left, graph.Add("select", {condition, dy, zero}));
  LEPTON_ASSIGN_OR_RETURN(const ValueId right, graph.Add("select", {condition, zero, dy}));
  LEPTON_ASSIGN_OR_RETURN(const ValueId da, SumToShapeOf(graph, left, a));
  LEPTON_ASSIGN_OR_RETURN(const ValueId db, SumToShapeOf(graph, right, b));
  return Gradients{da, db};
}

class BinaryMath final : public DifferentiableOp {
 public:
  BinaryMath() : DifferentiableOp("binary_math") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"function"}));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, inputs[0].dtype));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, BroadcastShape(inputs[0].shape, inputs[1].shape));
    const std::string function = attributes.Text("function");
    const DType dtype = inputs[0].dtype;
    const auto known = BinaryFunctions(dtype);
    if (std::find(known.begin(), known.end(), function) == known.end()) {
      return InvalidArgument("no function '" + function + "' of two " +
                             std::string(DTypeName(dtype)));
    }
    const bool compares = function == "equal" || IsOrder(function);
    return Types{{compares ? DType::kBool : dtype, std::move(shape)}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const std::string function = node.attributes.Text("function");
    const ValueId a = node.inputs[0], b = node.inputs[1], dy = output_gradients[0];
    const bool extreme = function == "min" || function == "max";
    if (graph.type(a).dtype != DType::kF32 || (!extreme && function != "pow")) {
      return InvalidArgument("binary_math " + function + " of " + graph.type(a).ToString() +
                             " has no gradient: only min, max and pow of f32 have one");
    }
    if (extreme) {  // to the one that was taken, of equal ones to the first
      LEPTON_ASSIGN_OR_RETURN(
          const ValueId first,
          graph.Add("binary_math", {a, b},
                    {{"function", function == "min" ? "less_equal" : "greater_equal"}}));
      return SplitBy(graph, first, dy, a, b);
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId one, graph.Add("fill", {b}, {{"value", 1.0}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId less, graph.Add("sub", {b, one}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId power,
                            graph.Add("binary_math", {a, less}, {{"function", "pow"}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId slope, graph.Add("mul", {power, b}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId all, graph.Add("mul", {dy, slope}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId da, SumToShapeOf(graph, all, a));
    // Of the exponent y log(a), where a base of 0 gives 0.
    LEPTON_ASSIGN_OR_RETURN(const ValueId zero, graph.Add("fill", {a}, {{"value", 0.0}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId none,
                            graph.Add("binary_math", {a, zero}, {{"function", "equal"}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId log, graph.Add("unary_math", {a}, {{"function", "log"}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId finite, graph.Add("select", {none, zero, log}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId rise, graph.Add("mul", {node.outputs[0], finite}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId whole, graph.Add("mul", {dy, rise}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db, SumToShapeOf(graph, whole, b));
    return Gradients{da, db};
  }
};

class Select final : public DifferentiableOp {
 public:
  Select() : DifferentiableOp("select") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kBool));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 2, inputs[1].dtype));
    LEPTON_ASSIGN_OR_RETURN(const Shape values, BroadcastShape(inputs[1].shape, inputs[2].shape));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, BroadcastShape(inputs[0].shape, values));
    return Types{{inputs[1].dtype, std::move(shape)}};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (graph.type(node.inputs[1]).dtype != DType::kF32) {
      return InvalidArgument("select of " + graph.type(node.inputs[1]).ToString() +
                             " has no gradient: only that of f32 has one");
    }
    LEPTON_ASSIGN_OR_RETURN(
        const Gradients both,
        SplitBy(graph, node.inputs[0], output_gradients[0], node.inputs[1], node.inputs[2]));
    return Gradients{kNoValue, both[0], both[1]};
  }
};

}  // namespace

const graph::Op& BinaryMathOp() {
  static const BinaryMath op;
  return op;
}

std::vector<std::string_view> BinaryFunctions(DType dtype) {
  std::vector<std::string_view> names = {"equal"};
  const auto add = [&](const auto& more) {
    names.insert(names.end(), std::begin(more), std::end(more));
  };
  if (dtype == DType::kBool) {
    add(kLogical);
    return names;
  }
  add(kNumbers);
  add(kOrders);
  if (!IsFloating(dtype)) add(kIntegers);
  return names;
}

const graph::Op& SelectOp() {
  static const Select op;
  return op;
}

}  // namespace lepton::ops::general
