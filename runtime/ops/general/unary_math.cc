#include "runtime/ops/general/unary_math.h"

#include <algorithm>

namespace lepton::ops::general {
namespace {

constexpr std::string_view kFloating[] = {
    "abs",   "acos",    "acosh", "asin", "asinh", "atan", "atanh", "ceil",
    "cos",   "cosh",    "erf",   "exp",  "floor", "log",  "neg",   "reciprocal",
    "round", "sigmoid", "sign",  "sin",  "sinh",  "sqrt", "tan",   "tanh"};
constexpr std::string_view kTests[] = {"is_nan", "is_inf", "is_pos_inf", "is_neg_inf"};
constexpr std::string_view kInteger[] = {"abs", "neg", "sign", "bit_not"};

template <size_t n>
bool HasUnary(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

class UnaryMath final : public OpWithoutGradient {
 public:
  UnaryMath() : OpWithoutGradient("unary_math") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"function"}));
    const std::string function = attributes.Text("function");
    const DType dtype = inputs[0].dtype;
    if (IsFloating(dtype) && HasUnary(kTests, function)) {
      return Types{{DType::kBool, inputs[0].shape}};
    }
    const bool known = IsFloating(dtype)       ? HasUnary(kFloating, function)
                       : dtype == DType::kBool ? function == "not"
                                               : HasUnary(kInteger, function);
    if (!known) {
      return InvalidArgument("no function '" + function + "' of " + std::string(DTypeName(dtype)));
    }
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& UnaryMathOp() {
  static const UnaryMath op;
  return op;
}

}  // namespace lepton::ops::general
