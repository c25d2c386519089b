#include "runtime/ops/general/binary_math.h"

#include <algorithm>

#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

constexpr std::string_view kNumbers[] = {"add", "sub", "mul", "div", "min",
                                         "max", "pow", "mod", "fmod"};
constexpr std::string_view kOrders[] = {"less", "less_equal", "greater", "greater_equal"};
constexpr std::string_view kIntegers[] = {"shift_left", "shift_right", "bit_and", "bit_or",
                                          "bit_xor"};
constexpr std::string_view kLogical[] = {"and", "or", "xor"};

template <size_t n>
bool HasBinary(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

class BinaryMath final : public OpWithoutGradient {
 public:
  BinaryMath() : OpWithoutGradient("binary_math") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"function"}));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, inputs[0].dtype));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, BroadcastShape(inputs[0].shape, inputs[1].shape));
    const std::string function = attributes.Text("function");
    const DType dtype = inputs[0].dtype;
    const bool number = dtype != DType::kBool;
    if (function == "equal" || (number && HasBinary(kOrders, function))) {
      return Types{{DType::kBool, std::move(shape)}};
    }
    if (!(number ? HasBinary(kNumbers, function) ||
                       (!IsFloating(dtype) && HasBinary(kIntegers, function))
                 : HasBinary(kLogical, function))) {
      return InvalidArgument("no function '" + function + "' of two " +
                             std::string(DTypeName(dtype)));
    }
    return Types{{dtype, std::move(shape)}};
  }
};

class Select final : public OpWithoutGradient {
 public:
  Select() : OpWithoutGradient("select") {}

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
};

}  // namespace

const graph::Op& BinaryMathOp() {
  static const BinaryMath op;
  return op;
}

const graph::Op& SelectOp() {
  static const Select op;
  return op;
}

}  // namespace lepton::ops::general
