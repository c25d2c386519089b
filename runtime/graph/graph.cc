#include "runtime/graph/graph.h"

#include "runtime/base/logging.h"

namespace lepton::graph {

const Op* OpSet::Find(std::string_view name) const {
  for (const Op* op : ops_) {
    if (op->name() == name) return op;
  }
  return nullptr;
}

Result<std::vector<ValueId>> Op::Again(Graph& graph, NodeId node,
                                       std::vector<ValueId> inputs) const {
  return graph.nodes()[graph.Repeat(node, std::move(inputs))].outputs;
}

ValueId Graph::AddInput(std::string name, TensorType type) {
  values_.push_back({std::move(name), std::move(type), ValueKind::kInput, kNoNode});
  return static_cast<ValueId>(values_.size()) - 1;
}

ValueId Graph::AddParameter(std::string name, TensorType type) {
  values_.push_back({std::move(name), std::move(type), ValueKind::kParameter, kNoNode});
  return static_cast<ValueId>(values_.size()) - 1;
}

Result<std::vector<ValueId>> Graph::AddNode(std::string_view op_name, std::vector<ValueId> inputs,
                                            Attributes attributes, std::string name) {
  if (name.empty()) name = std::string(op_name) + "#" + std::to_string(nodes_.size());
  const Op* op = ops_->Find(op_name);
  if (op == nullptr) return InvalidArgument(name + ": no op named '" + std::string(op_name) + "'");
  std::vector<TensorType> types;
  for (const ValueId input : inputs) {
    if (input < 0 || input >= static_cast<ValueId>(values_.size())) {
      return InvalidArgument(name + ": an input that is not in the graph");
    }
    types.push_back(values_[input].type);
  }
  auto outputs = op->Infer(types, attributes);
  if (!outputs.ok()) return outputs.status().WithContext(name);
  Node node{op, std::move(name), std::move(inputs), {}, std::move(attributes), block_};
  for (TensorType& type : *outputs) {
    node.outputs.push_back(static_cast<ValueId>(values_.size()));
    values_.push_back(
        {node.name, std::move(type), ValueKind::kComputed, static_cast<NodeId>(nodes_.size())});
  }
  std::vector<ValueId> ids = node.outputs;
  nodes_.push_back(std::move(node));
  return ids;
}

Result<ValueId> Graph::Add(std::string_view op, std::vector<ValueId> inputs, Attributes attributes,
                           std::string name) {
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ValueId> outputs,
                          AddNode(op, std::move(inputs), std::move(attributes), std::move(name)));
  return outputs.front();
}

Status Graph::ReplaceOp(NodeId id, std::string_view op_name, Attributes attributes) {
  Node& node = nodes_[id];
  const Op* op = ops_->Find(op_name);
  if (op == nullptr) {
    return InvalidArgument(node.name + ": no op named '" + std::string(op_name) + "'");
  }
  std::vector<TensorType> types;
  for (const ValueId input : node.inputs) types.push_back(values_[input].type);
  const auto outputs = op->Infer(types, attributes);
  if (!outputs.ok()) return outputs.status().WithContext(node.name);
  bool same = outputs->size() == node.outputs.size();
  for (size_t i = 0; same && i < outputs->size(); ++i) {
    same = (*outputs)[i] == values_[node.outputs[i]].type;
  }
  if (!same) {
    return InvalidArgument(node.name + ": " + std::string(op_name) + " gives something else than " +
                           std::string(node.op->name()));
  }
  node.op = op;
  node.attributes = std::move(attributes);
  return Status::Ok();
}

NodeId Graph::Repeat(NodeId id, std::vector<ValueId> inputs) {
  Node node = nodes_[id];
  node.name += "/again";
  node.inputs = std::move(inputs);
  node.block = 0;
  node.recomputed = true;
  for (ValueId& output : node.outputs) {
    const TensorType type = values_[output].type;
    output = static_cast<ValueId>(values_.size());
    values_.push_back({node.name, type, ValueKind::kComputed, static_cast<NodeId>(nodes_.size())});
  }
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size()) - 1;
}

Status Graph::AddOutput(ValueId value, bool external) {
  if (value < 0 || value >= static_cast<ValueId>(values_.size())) {
    return InvalidArgument("output: not a value of the graph");
  }
  if (external && values_[value].kind != ValueKind::kComputed) {
    return InvalidArgument("output " + values_[value].name + ": must be computed by a node");
  }
  outputs_.push_back({value, external});
  return Status::Ok();
}

Status Graph::AddPassingOutput(ValueId value) {
  LEPTON_RETURN_IF_ERROR(AddOutput(value, /*external=*/true));
  outputs_.back() = {value, /*external=*/false, /*passing=*/true};
  return Status::Ok();
}

ValueId Graph::FindSource(std::string_view name) const {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].kind != ValueKind::kComputed && values_[i].name == name) {
      return static_cast<ValueId>(i);
    }
  }
  return kNoValue;
}

std::string Graph::ToString() const {
  std::string text;
  const auto list = [](const std::vector<ValueId>& ids) {
    std::string out;
    for (const ValueId id : ids) out += (out.empty() ? "%" : ", %") + std::to_string(id);
    return out;
  };
  for (const Node& node : nodes_) {
    text += list(node.outputs) + " " + values_[node.outputs.front()].type.ToString() + " = " +
            std::string(node.op->name()) + "(" + list(node.inputs) + ")  " + node.name + "\n";
  }
  return text;
}

}  // namespace lepton::graph
