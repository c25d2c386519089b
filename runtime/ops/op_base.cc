#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Status Wrong(std::span<const TensorType> inputs, size_t index, const std::string& wanted) {
  return InvalidArgument("input " + std::to_string(index) + " is " + inputs[index].ToString() +
                         "; must be " + wanted);
}

}  // namespace

Status ExpectInputs(std::span<const TensorType> inputs, size_t count) {
  if (inputs.size() == count) return Status::Ok();
  return InvalidArgument("has " + std::to_string(inputs.size()) + " inputs; must have " +
                         std::to_string(count));
}

Status ExpectType(std::span<const TensorType> inputs, size_t index, const TensorType& wanted) {
  if (inputs[index] == wanted) return Status::Ok();
  return Wrong(inputs, index, wanted.ToString());
}

Status ExpectRank(std::span<const TensorType> inputs, size_t index, DType dtype, int rank) {
  if (inputs[index].dtype == dtype && inputs[index].shape.rank() == rank) return Status::Ok();
  return Wrong(inputs, index, std::string(DTypeName(dtype)) + " of rank " + std::to_string(rank));
}

Status ExpectRows(std::span<const TensorType> inputs, size_t index, DType dtype) {
  if (inputs[index].dtype == dtype && inputs[index].shape.rank() >= 2) return Status::Ok();
  return Wrong(inputs, index, std::string(DTypeName(dtype)) + " of rank 2 or more");
}

Status ExpectDType(std::span<const TensorType> inputs, size_t index, DType dtype) {
  if (inputs[index].dtype == dtype) return Status::Ok();
  return Wrong(inputs, index, std::string(DTypeName(dtype)));
}

Status ExpectFloat(std::span<const TensorType> inputs, size_t index) {
  if (inputs[index].dtype == DType::kF32 || inputs[index].dtype == DType::kBF16) {
    return Status::Ok();
  }
  return Wrong(inputs, index, "f32 or bf16");
}

ValueId Unwidened(const Graph& graph, ValueId value) {
  const graph::NodeId producer = graph.value(value).producer;
  if (producer == graph::kNoNode || graph.type(value).dtype != DType::kF32) return value;
  const Node& node = graph.nodes()[producer];
  const bool widens = node.op->name() == "cast" && graph.type(node.inputs[0]).dtype == DType::kBF16;
  return widens ? node.inputs[0] : value;
}

Result<ValueId> As(Graph& graph, ValueId value, DType dtype) {
  if (graph.type(value).dtype == dtype) return value;
  if (const ValueId narrow = Unwidened(graph, value); graph.type(narrow).dtype == dtype) {
    return narrow;
  }
  return graph.Add("cast", {value}, {{"to", std::string(DTypeName(dtype))}});
}

Result<Types> ElementwiseGradOp::Infer(std::span<const TensorType> inputs,
                                       const Attributes& attributes) const {
  LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  if (inputs[1] != TensorType{DType::kF32, inputs[0].shape}) {
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
  }
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  return Types{inputs[0]};
}

}  // namespace lepton::ops
