#include "runtime/ops/general/data_movement.h"

#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

class Convert final : public OpWithoutGradient {
 public:
  Convert() : OpWithoutGradient("convert") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"to"}));
    const std::string to = attributes.Text("to");
    for (int i = 0; i < kDTypes; ++i) {
      const DType dtype = static_cast<DType>(i);
      if (DTypeName(dtype) == to) return Types{{dtype, inputs[0].shape}};
    }
    return InvalidArgument("to: no type named '" + to + "'");
  }
};

class Strided final : public OpWithoutGradient {
 public:
  Strided() : OpWithoutGradient("strided") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"shape", "strides", "offset"}));
    const Shape shape(attributes.Ints("shape"));
    const std::vector<int64_t> strides = attributes.Ints("strides");
    if (strides.size() != static_cast<size_t>(shape.rank())) {
      return InvalidArgument("strides: must have one number per extent of shape");
    }
    // The lowest and highest element that the result reads.
    __int128 low = attributes.Int("offset");
    __int128 high = low;
    bool empty = false;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] < 0) return InvalidArgument("shape: extents must not be negative");
      empty |= shape[axis] == 0;
      const __int128 reach = static_cast<__int128>(shape[axis] - 1) * strides[axis];
      (reach < 0 ? low : high) += reach;
    }
    if (!empty && (low < 0 || high >= inputs[0].shape.elements())) {
      return InvalidArgument("reaches outside of its input " + inputs[0].ToString());
    }
    return Types{{inputs[0].dtype, shape}};
  }
};

class PadConstant final : public OpWithoutGradient {
 public:
  PadConstant() : OpWithoutGradient("pad_constant") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"before", "after"}));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {inputs[0].dtype, {}}));
    const std::vector<int64_t> before = attributes.Ints("before");
    const std::vector<int64_t> after = attributes.Ints("after");
    std::vector<int64_t> extents = inputs[0].shape.extents();
    if (before.size() != extents.size() || after.size() != extents.size()) {
      return InvalidArgument("before, after: must have one number per axis");
    }
    for (size_t axis = 0; axis < extents.size(); ++axis) {
      if (before[axis] == 0 && after[axis] == 0) continue;  // it may be open
      if (extents[axis] < 0 ||
          __builtin_add_overflow(extents[axis], before[axis], &extents[axis]) ||
          __builtin_add_overflow(extents[axis], after[axis], &extents[axis]) || extents[axis] < 0) {
        return InvalidArgument("before, after: axis " + std::to_string(axis) +
                               " gets a negative or too large extent, or is open");
      }
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }
};

class Join final : public OpWithoutGradient {
 public:
  Join() : OpWithoutGradient("join") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.empty()) return InvalidArgument("must have at least one input");
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
    LEPTON_ASSIGN_OR_RETURN(const int axis,
                            ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()));
    std::vector<int64_t> extents = inputs[0].shape.extents();
    for (size_t i = 1; i < inputs.size(); ++i) {
      LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, i, inputs[0].dtype, inputs[0].shape.rank()));
      if (inputs[i].shape.WithoutAxis(axis) != inputs[0].shape.WithoutAxis(axis)) {
        return InvalidArgument("input " + std::to_string(i) + " is " + inputs[i].ToString() +
                               "; must differ from " + inputs[0].ToString() + " at axis " +
                               std::to_string(axis) + " only");
      }
      extents[axis] += inputs[i].shape[axis];
    }
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }
};

}  // namespace

const graph::Op& ConvertOp() {
  static const Convert op;
  return op;
}

const graph::Op& StridedOp() {
  static const Strided op;
  return op;
}

const graph::Op& PadConstantOp() {
  static const PadConstant op;
  return op;
}

const graph::Op& JoinOp() {
  static const Join op;
  return op;
}

}  // namespace lepton::ops::general
