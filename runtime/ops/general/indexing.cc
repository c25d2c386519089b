#include "runtime/ops/general/indexing.h"

#include "runtime/ops/general/shape_rules.h"

namespace lepton::ops::general {
namespace {

Status CheckReduction(const Attributes& attributes, DType dtype) {
  const std::string name = attributes.Text("reduction", "none");
  if (name == "none") return Status::Ok();
  if (dtype == DType::kBool) return InvalidArgument("reduction: bool has none");
  if (name == "add" || name == "mul" || name == "min" || name == "max") return Status::Ok();
  return InvalidArgument("reduction: no '" + name + "'");
}

class Take final : public OpWithoutGradient {
 public:
  Take() : OpWithoutGradient("take") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, DType::kI64));
    LEPTON_ASSIGN_OR_RETURN(const int axis,
                            ResolveAxis(attributes.Int("axis"), inputs[0].shape.rank()));
    std::vector<int64_t> extents = inputs[0].shape.extents();
    const std::vector<int64_t>& indices = inputs[1].shape.extents();
    extents.erase(extents.begin() + axis);
    extents.insert(extents.begin() + axis, indices.begin(), indices.end());
    return Types{{inputs[0].dtype, Shape(std::move(extents))}};
  }
};

// The indices of gather_elements and scatter_elements.
Status CheckElementIndices(std::span<const TensorType> inputs, const Attributes& attributes) {
  const Shape& x = inputs[0].shape;
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 1, DType::kI64, x.rank()));
  LEPTON_ASSIGN_OR_RETURN(const int axis, ResolveAxis(attributes.Int("axis"), x.rank()));
  for (int i = 0; i < x.rank(); ++i) {
    if (i != axis && inputs[1].shape[i] > x[i]) {
      return InvalidArgument("indices " + inputs[1].shape.ToString() + " reach outside of " +
                             x.ToString());
    }
  }
  return Status::Ok();
}

class GatherElements final : public OpWithoutGradient {
 public:
  GatherElements() : OpWithoutGradient("gather_elements") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis"}));
    LEPTON_RETURN_IF_ERROR(CheckElementIndices(inputs, attributes));
    return Types{{inputs[0].dtype, inputs[1].shape}};
  }
};

class ScatterElements final : public OpWithoutGradient {
 public:
  ScatterElements() : OpWithoutGradient("scatter_elements") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"axis", "reduction"}));
    LEPTON_RETURN_IF_ERROR(CheckElementIndices(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, {inputs[0].dtype, inputs[1].shape}));
    LEPTON_RETURN_IF_ERROR(CheckReduction(attributes, inputs[0].dtype));
    return Types{inputs[0]};
  }
};

// The shape of what gather_nd reads and scatter_nd writes.
Result<Shape> NdShape(std::span<const TensorType> inputs, int64_t batch_axes) {
  const Shape& x = inputs[0].shape;
  const Shape& indices = inputs[1].shape;
  LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 1, DType::kI64));
  if (indices.rank() < 1 || batch_axes < 0 || batch_axes >= indices.rank() ||
      batch_axes > x.rank() || indices.back() < 0 || indices.back() > x.rank() - batch_axes) {
    return InvalidArgument("indices " + indices.ToString() + " do not fit " + x.ToString());
  }
  for (int axis = 0; axis < batch_axes; ++axis) {
    if (x[axis] != indices[axis]) return InvalidArgument("batch axes differ");
  }
  std::vector<int64_t> extents(indices.extents().begin(), indices.extents().end() - 1);
  extents.insert(extents.end(), x.extents().begin() + batch_axes + indices.back(),
                 x.extents().end());
  return Shape(std::move(extents));
}

class GatherNd final : public OpWithoutGradient {
 public:
  GatherNd() : OpWithoutGradient("gather_nd") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"batch_axes"}));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, NdShape(inputs, attributes.Int("batch_axes")));
    return Types{{inputs[0].dtype, std::move(shape)}};
  }
};

class ScatterNd final : public OpWithoutGradient {
 public:
  ScatterNd() : OpWithoutGradient("scatter_nd") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"reduction"}));
    LEPTON_ASSIGN_OR_RETURN(Shape shape, NdShape(inputs, 0));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, {inputs[0].dtype, std::move(shape)}));
    LEPTON_RETURN_IF_ERROR(CheckReduction(attributes, inputs[0].dtype));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& TakeOp() {
  static const Take op;
  return op;
}

const graph::Op& GatherElementsOp() {
  static const GatherElements op;
  return op;
}

const graph::Op& ScatterElementsOp() {
  static const ScatterElements op;
  return op;
}

const graph::Op& GatherNdOp() {
  static const GatherNd op;
  return op;
}

const graph::Op& ScatterNdOp() {
  static const ScatterNd op;
  return op;
}

}  // namespace lepton::ops::general
