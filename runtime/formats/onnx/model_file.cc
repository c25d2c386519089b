#include "runtime/formats/onnx/model_file.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {
namespace {

using onnx_proto::GraphProto;
using onnx_proto::TensorProto;

// Inputs of operators that may be weights.
struct WeightInputs {
  std::string_view op;
  std::vector<int> inputs;  // empty: any
};
const std::vector<WeightInputs>& AllWeightInputs() {
  static const std::vector<WeightInputs> list = {
      {"Add", {}},
      {"BatchNormalization", {1, 2}},
      {"Concat", {}},
      {"Conv", {1, 2}},
      {"ConvTranspose", {1, 2}},
      {"Div", {}},
      {"Einsum", {}},
      {"Expand", {0}},
      {"GRU", {1, 2, 3}},
      {"Gather", {0}},
      {"Gemm", {}},
      {"Identity", {0}},
      {"InstanceNormalization", {1, 2}},
      {"LSTM", {1, 2, 3}},
      {"LayerNormalization", {1, 2}},
      {"MatMul", {}},
      {"Mul", {}},
      {"PRelu", {1}},
      {"RNN", {1, 2, 3}},
      {"Reshape", {0}},
      {"Slice", {0}},
      {"Squeeze", {0}},
      {"Sub", {}},
      {"Transpose", {0}},
      {"Unsqueeze", {0}},
  };
  return list;
}

bool MayBeWeight(const std::string& op, int input) {
  for (const WeightInputs& entry : AllWeightInputs()) {
    if (entry.op != op) continue;
    return entry.inputs.empty() ||
           std::find(entry.inputs.begin(), entry.inputs.end(), input) != entry.inputs.end();
  }
  return false;
}

// One number is a constant of the model rather than a weight where it scales or shifts.
bool IsArithmetic(const std::string& op) {
  return op == "Add" || op == "Sub" || op == "Mul" || op == "Div";
}

void CollectNames(const GraphProto& graph, std::set<std::string>& names) {
  for (const auto& node : graph.node()) {
    names.insert(node.input().begin(), node.input().end());
    for (const auto& attribute : node.attribute()) {
      if (attribute.has_g()) CollectNames(attribute.g(), names);
      for (const auto& inner : attribute.graphs()) CollectNames(inner, names);
    }
  }
  for (const auto& output : graph.output()) names.insert(output.name());
}

int64_t Elements(const TensorProto& tensor) {
  int64_t count = 1;
  for (const int64_t extent : tensor.dims()) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) return -1;
  }
  return count;
}

// The initializers that are weights.
std::set<std::string> FindWeights(const GraphProto& graph) {
  constexpr int32_t kFloatCode = 1;
  std::set<std::string> weights, used;
  for (const auto& tensor : graph.initializer()) {
    // Those that our own exporter makes for numbers.
    const bool ours = tensor.name().starts_with("const.");
    if (tensor.data_type() == kFloatCode && tensor.dims_size() > 0 && Elements(tensor) > 0 &&
        !ours) {
      weights.insert(tensor.name());
    }
  }
  std::map<std::string, const TensorProto*> by_name;
  for (const auto& tensor : graph.initializer()) by_name[tensor.name()] = &tensor;
  std::set<std::string> elsewhere;
  for (const auto& output : graph.output()) elsewhere.insert(output.name());
  for (const auto& node : graph.node()) {
    for (int i = 0; i < node.input_size(); ++i) {
      const std::string& name = node.input(i);
      if (!weights.contains(name)) continue;
      used.insert(name);
      const bool number = IsArithmetic(node.op_type()) && Elements(*by_name[name]) == 1;
      if (!MayBeWeight(node.op_type(), i) || number) elsewhere.insert(name);
    }
    for (const auto& attribute : node.attribute()) {
      if (attribute.has_g()) CollectNames(attribute.g(), elsewhere);
      for (const auto& inner : attribute.graphs()) CollectNames(inner, elsewhere);
    }
  }
  std::erase_if(weights, [&](const std::string& name) {
    return elsewhere.contains(name) || !used.contains(name);
  });
  return weights;
}

void LeaveOut(TensorProto& tensor) {
  TensorProto left;
  left.set_name(tensor.name());
  left.set_data_type(tensor.data_type());
  *left.mutable_dims() = tensor.dims();
  left.set_data_location(1);
  auto* entry = left.add_external_data();
  entry->set_key("location");
  entry->set_value(std::string(kWeightsFile));
  tensor = std::move(left);
}

void PutInside(TensorProto& tensor, const void* data, size_t bytes) {
  TensorProto inside;
  inside.set_name(tensor.name());
  inside.set_data_type(tensor.data_type());
  *inside.mutable_dims() = tensor.dims();
  inside.set_raw_data(data, bytes);
  tensor = std::move(inside);
}

bool IsLeftOut(const TensorProto& tensor) {
  return tensor.data_location() == 1 && tensor.external_data_size() == 1 &&
         tensor.external_data(0).value() == kWeightsFile;
}

}  // namespace

Result<TakenApart> TakeApart(std::string_view bytes, const std::filesystem::path& folder,
                             const Limits& limits) {
  TakenApart apart;
  onnx_proto::ModelProto model;
  LEPTON_RETURN_IF_ERROR(ParseModel(bytes, &model));
  GraphProto& graph = *model.mutable_graph();
  const std::set<std::string> weights = FindWeights(graph);
  std::set<std::string> used;
  CollectNames(graph, used);
  google::protobuf::RepeatedPtrField<TensorProto> kept;
  std::set<std::string> seen;
  int64_t total = 0;
  for (TensorProto& tensor : *graph.mutable_initializer()) {
    if (!used.contains(tensor.name())) continue;
    if (!seen.insert(tensor.name()).second) {
      return InvalidArgument("initializer '" + tensor.name() + "' is given twice");
    }
    if (weights.contains(tensor.name()) || tensor.data_location() == 1) {
      LEPTON_ASSIGN_OR_RETURN(HostTensor value, DecodeTensor(tensor, folder, limits));
      total += static_cast<int64_t>(value.type.bytes());
      if (total > limits.total_bytes) {
        return ResourceExhausted("weights of more than " + std::to_string(limits.total_bytes) +
                                 " bytes");
      }
      if (weights.contains(tensor.name())) {
        LeaveOut(tensor);
        apart.weights.push_back({tensor.name(), std::move(value)});
      } else {
        PutInside(tensor, value.data.data(), value.type.bytes());
      }
    }
    *kept.Add() = std::move(tensor);
  }
  *graph.mutable_initializer() = std::move(kept);
  for (const auto& entry : model.metadata_props()) apart.metadata[entry.key()] = entry.value();
  if (!model.SerializeToString(&apart.graph)) {
    return ResourceExhausted("the graph without its weights is larger than 2 GiB");
  }
  return apart;
}

Result<ExportedModel> PutTogether(std::string_view graph,
                                  const std::map<std::string, TensorView>& weights,
                                  int64_t inline_bytes, const std::string& data_file) {
  ExportedModel whole;
  onnx_proto::ModelProto model;
  LEPTON_RETURN_IF_ERROR(ParseModel(graph, &model));
  int64_t total = 0;
  for (const auto& [name, view] : weights) total += static_cast<int64_t>(view.type.bytes());
  for (TensorProto& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (!IsLeftOut(tensor)) continue;
    const auto found = weights.find(tensor.name());
    const TensorType wanted{DType::kF32, Shape({tensor.dims().begin(), tensor.dims().end()})};
    if (found == weights.end() || found->second.type != wanted) {
      return InvalidArgument("weight '" + tensor.name() + "' is missing or is not " +
                             wanted.ToString());
    }
    if (total <= inline_bytes) {
      PutInside(tensor, found->second.data, wanted.bytes());
      continue;
    }
    constexpr size_t kPage = 4096;  // so that the file can be mapped
    whole.data.resize((whole.data.size() + kPage - 1) / kPage * kPage);
    tensor.clear_external_data();
    for (const auto& [key, value] :
         std::map<std::string, std::string>{{"location", data_file},
                                            {"offset", std::to_string(whole.data.size())},
                                            {"length", std::to_string(wanted.bytes())}}) {
      auto* entry = tensor.add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    whole.data.append(static_cast<const char*>(found->second.data), wanted.bytes());
  }
  if (!model.SerializeToString(&whole.model)) {
    return ResourceExhausted("the model is larger than 2 GiB");
  }
  return whole;
}

}  // namespace lepton::onnx
