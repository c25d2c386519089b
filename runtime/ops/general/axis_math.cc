#include "runtime/ops/general/axis_math.h"

#include <algorithm>

#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

Status ExpectNumbers(std::span<const TensorType> inputs, size_t index) {
  if (inputs[index].dtype != DType::kBool) return Status::Ok();
  return InvalidArgument("input " + std::to_string(index) + " is bool; must be numbers");
}

class ReduceAxes final : public OpWithoutGradient {
 public:
  ReduceAxes() : OpWithoutGradient("reduce_axes") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectNumbers(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"function", "axes"}));
    constexpr std::string_view kFunctions[] = {"sum", "prod",       "max", "min",
                                               "l1",  "sum_square", "mean"};
    const std::string function = attributes.Text("function");
    if (std::find(std::begin(kFunctions), std::end(kFunctions), function) == std::end(kFunctions)) {
      return InvalidArgument("no reduction '" + function + "'");
    }
    std::vector<int64_t> extents = inputs[0].shape.extents();
    for (const int64_t axis : attributes.Ints("axes")) {
      LEPTON_ASSIGN_OR_RETURN(const int resolved, ResolveAxis(axis, inputs[0].shape.rank()));
      if (extents[resolved] == 0 && (function == "max" || function == "min")) {
        return InvalidArgument("no " + function + " of nothing");
      }
      extents[resolved] = 1;
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }
};

class ArgExtreme final : public OpWithoutGradient {
 public:
  ArgExtreme() : OpWithoutGradient("arg_extreme") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectNumbers(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "largest", "last"}));
    LEPTON_ASSIGN_OR_RETURN(const int axis,
                            ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()));
    std::vector<int64_t> extents = inputs[0].shape.extents();
    if (extents[axis] == 0) return InvalidArgument("no extreme of nothing");
    extents[axis] = 1;
    return Types{{DType::kI64, Shape(std::move(extents))}};
  }
};

class CumulativeSum final : public OpWithoutGradient {
 public:
  CumulativeSum() : OpWithoutGradient("cumulative_sum") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectNumbers(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "exclusive", "reverse"}));
    LEPTON_RETURN_IF_ERROR(ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()).status());
    return Types{inputs[0]};
  }
};

class TopK final : public OpWithoutGradient {
 public:
  TopK() : OpWithoutGradient("top_k") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectNumbers(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "k", "largest"}));
    LEPTON_ASSIGN_OR_RETURN(const int axis,
                            ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()));
    std::vector<int64_t> extents = inputs[0].shape.extents();
    const int64_t k = attributes.Int("k");
    if (k < 0 || k > extents[axis]) {
      return InvalidArgument("k: must be between 0 and the extent " +
                             std::to_string(extents[axis]));
    }
    extents[axis] = k;
    return Types{{inputs[0].dtype, Shape(extents)}, {DType::kI64, Shape(extents)}};
  }
};

class GeneralMatmul final : public OpWithoutGradient {
 public:
  GeneralMatmul() : OpWithoutGradient("general_matmul") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    LEPTON_RETURN_IF_ERROR(ExpectNumbers(inputs, 0));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, inputs[0].dtype));
    if (inputs[0].dtype == DType::kF16 || inputs[0].dtype == DType::kBF16) {
      return InvalidArgument("input 0 must not be f16 or bf16");
    }
    const Shape& a = inputs[0].shape;
    const Shape& b = inputs[1].shape;
    if (a.rank() < 2 || b.rank() < 2 || a.back() != b[b.rank() - 2]) {
      return InvalidArgument("inputs " + a.ToString() + " and " + b.ToString() +
                             " do not multiply");
    }
    const auto leading = [](const Shape& shape) {
      return Shape({shape.extents().begin(), shape.extents().end() - 2});
    };
    LEPTON_ASSIGN_OR_RETURN(const Shape batch, BroadcastShape(leading(a), leading(b)));
    std::vector<int64_t> extents = batch.extents();
    extents.push_back(a[a.rank() - 2]);
    extents.push_back(b.back());
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }
};

}  // namespace

const graph::Op& ReduceAxesOp() {
  static const ReduceAxes op;
  return op;
}

const graph::Op& ArgExtremeOp() {
  static const ArgExtreme op;
  return op;
}

const graph::Op& CumulativeSumOp() {
  static const CumulativeSum op;
  return op;
}

const graph::Op& TopKOp() {
  static const TopK op;
  return op;
}

const graph::Op& GeneralMatmulOp() {
  static const GeneralMatmul op;
  return op;
}

}  // namespace lepton::ops::general
