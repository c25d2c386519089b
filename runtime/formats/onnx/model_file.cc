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

std::optional<std::vector<float>> FloatsOf(const GraphProto& graph, const std::string& name,
                                           const Limits& limits) {
  for (const TensorProto& tensor : graph.initializer()) {
    if (tensor.name() != name || tensor.data_type() != 1) continue;
    const auto value = DecodeTensor(tensor, {}, limits);
    if (!value.ok()) return std::nullopt;
    std::vector<float> floats;
    for (const double number : AsDoubles(*value)) floats.push_back(static_cast<float>(number));
    return floats;
  }
  return std::nullopt;
}

// The extents of what is known per number of a row: of pictures [batch, channels, height, width]
// per channel, else per element of all axes but the open one. None where another is open too.
std::optional<std::vector<int64_t>> PerColumn(const onnx_proto::TensorShapeProto& input) {
  std::vector<int64_t> extents;
  int open = 0;
  for (const auto& dim : input.dim()) {
    open += dim.has_dim_value() ? 0 : 1;
    extents.push_back(dim.has_dim_value() ? dim.dim_value() : 1);
  }
  if (open == 0 && !extents.empty()) extents[0] = 1;
  if (extents.size() == 4 && extents[0] == 1) {
    if (!input.dim(1).has_dim_value()) return std::nullopt;
    return std::vector<int64_t>{1, extents[1], 1, 1};
  }
  if (extents.size() < 2 || open > 1) return std::nullopt;
  return extents;
}

bool IsPerColumn(const GraphProto& graph, const std::string& name) {
  const auto wanted = PerColumn(graph.input(0).type().tensor_type().shape());
  for (const TensorProto& tensor : graph.initializer()) {
    if (tensor.name() != name || !wanted) continue;
    std::vector<int64_t> extents(tensor.dims().begin(), tensor.dims().end());
    if (extents.size() + 1 == wanted->size()) extents.insert(extents.begin(), 1);
    return extents == *wanted;
  }
  return false;
}

// (known - mean) / scale with known = x, or mean where x is NaN, and x the only input: the first
// nodes of what our exporter writes.
std::optional<ExportRequest::Normalization> TakeNormalization(GraphProto& graph,
                                                              const Limits& limits) {
  if (graph.input_size() != 1 || graph.node_size() < 2) return std::nullopt;
  const std::string x = graph.input(0).name();
  const auto& nodes = graph.node();
  const auto is = [&](int at, std::string_view op, std::vector<std::string> inputs) {
    return at < nodes.size() && nodes[at].op_type() == op && nodes[at].output_size() == 1 &&
           std::equal(nodes[at].input().begin(), nodes[at].input().end(), inputs.begin(),
                      inputs.end());
  };
  int at = 0;
  std::string known = x, mean;
  if (nodes.size() > 3 && is(0, "IsNaN", {x}) && nodes[1].input_size() == 3 &&
      is(1, "Where", {nodes[0].output(0), nodes[1].input(1), x})) {
    known = nodes[1].output(0);
    mean = nodes[1].input(1);
    at = 2;
  }
  if (nodes[at].input_size() != 2 || nodes[at + 1].input_size() != 2) return std::nullopt;
  if (mean.empty()) mean = nodes[at].input(1);
  const std::string scale = nodes[at + 1].input(1);
  if (!is(at, "Sub", {known, mean}) || !is(at + 1, "Div", {nodes[at].output(0), scale})) {
    return std::nullopt;
  }
  const auto means = FloatsOf(graph, mean, limits), scales = FloatsOf(graph, scale, limits);
  const auto positive = [](float number) { return number > 0; };
  if (!means || !scales || !IsPerColumn(graph, mean) || !IsPerColumn(graph, scale) ||
      !std::all_of(scales->begin(), scales->end(), positive)) {
    return std::nullopt;
  }
  // Nothing else reads the raw numbers or what comes between.
  const std::string result = nodes[at + 1].output(0);
  std::set<std::string> inside = {x};
  for (int i = 0; i <= at; ++i) inside.insert(nodes[i].output(0));
  for (int i = at + 2; i < nodes.size(); ++i) {
    for (const std::string& input : nodes[i].input()) {
      if (inside.contains(input)) return std::nullopt;
    }
    for (const auto& attribute : nodes[i].attribute()) {
      if (attribute.has_g() || attribute.graphs_size() > 0) return std::nullopt;
    }
  }
  for (const auto& output : graph.output()) {
    if (inside.contains(output.name()) || output.name() == result) return std::nullopt;
  }
  graph.mutable_node()->DeleteSubrange(0, at + 2);
  for (auto& node : *graph.mutable_node()) {
    for (auto& input : *node.mutable_input()) {
      if (input == result) input = x;
    }
  }
  return ExportRequest::Normalization{x, *means, *scales};
}

bool IsLeftOut(const TensorProto& tensor) {
  return tensor.data_location() == 1 && tensor.external_data_size() == 1 &&
         tensor.external_data(0).value() == kWeightsFile;
}

void SetMetadata(const std::map<std::string, std::string>& metadata,
                 onnx_proto::ModelProto& model) {
  for (const auto& [key, value] : metadata) {
    auto* entry = static_cast<onnx_proto::StringStringEntryProto*>(nullptr);
    for (auto& old : *model.mutable_metadata_props()) {
      if (old.key() == key) entry = &old;
    }
    if (entry == nullptr) entry = model.add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
}

void AddFloats(const std::string& name, const std::vector<int64_t>& extents,
               const std::vector<float>& numbers, GraphProto& graph) {
  TensorProto& tensor = *graph.add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(1);
  for (const int64_t extent : extents) tensor.add_dims(extent);
  tensor.set_raw_data(numbers.data(), numbers.size() * sizeof(float));
}

// Nodes before all others, which read the normalised numbers instead of the input.
Status AddNormalization(const ExportRequest::Normalization& normalize, GraphProto& graph) {
  std::vector<std::string> inputs;
  std::set<std::string> initializers;
  for (const auto& tensor : graph.initializer()) initializers.insert(tensor.name());
  const onnx_proto::ValueInfoProto* input = nullptr;
  for (const auto& info : graph.input()) {
    if (!initializers.contains(info.name())) {
      inputs.push_back(info.name());
      input = &info;
    }
  }
  const auto& tensor = inputs.size() == 1 ? input->type().tensor_type()
                                          : onnx_proto::TypeProto::Tensor::default_instance();
  const int rank = tensor.shape().dim_size();
  auto extents = PerColumn(tensor.shape());
  int64_t count = 1;
  for (const int64_t extent : extents.value_or(std::vector<int64_t>())) count *= extent;
  if (tensor.elem_type() != 1 || !extents || count != static_cast<int64_t>(normalize.mean.size()) ||
      normalize.scale.size() != normalize.mean.size()) {
    return FailedPrecondition(
        "the data was normalised, which can be put before one f32 input of features or pictures "
        "only");
  }
  if (rank == 2 && (*extents)[0] == 1) extents = {count};  // of the last axis
  const std::string raw = inputs[0], prefix = "const.normalize.";
  const std::string normalised = prefix + raw;
  AddFloats(prefix + "mean", *extents, normalize.mean, graph);
  AddFloats(prefix + "scale", *extents, normalize.scale, graph);
  for (auto& node : *graph.mutable_node()) {
    for (auto& name : *node.mutable_input()) {
      if (name == raw) name = normalised;
    }
  }
  google::protobuf::RepeatedPtrField<onnx_proto::NodeProto> nodes;
  const auto add = [&](const char* op, std::vector<std::string> from, const std::string& to) {
    auto* node = nodes.Add();
    node->set_op_type(op);
    node->set_name(to);
    for (auto& name : from) node->add_input(name);
    node->add_output(to);
  };
  std::string known = raw;
  if (rank != 4) {  // a missing number is taken for the mean
    add("IsNaN", {raw}, prefix + "missing");
    add("Where", {prefix + "missing", prefix + "mean", raw}, prefix + "known");
    known = prefix + "known";
  }
  add("Sub", {known, prefix + "mean"}, prefix + "centred");
  add("Div", {prefix + "centred", prefix + "scale"}, normalised);
  nodes.MergeFrom(graph.node());
  *graph.mutable_node() = std::move(nodes);
  return Status::Ok();
}

}  // namespace

Result<TakenApart> TakeApart(std::string_view bytes, const ExternalData& external,
                             const Limits& limits) {
  TakenApart apart;
  onnx_proto::ModelProto model;
  LEPTON_RETURN_IF_ERROR(ParseModel(bytes, &model));
  GraphProto& graph = *model.mutable_graph();
  apart.normalize = TakeNormalization(graph, limits);
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
      LEPTON_ASSIGN_OR_RETURN(HostTensor value, DecodeTensor(tensor, external, limits));
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
                                  const PutTogetherOptions& options) {
  ExportedModel whole;
  onnx_proto::ModelProto model;
  LEPTON_RETURN_IF_ERROR(ParseModel(graph, &model));
  if (options.normalize) {
    LEPTON_RETURN_IF_ERROR(AddNormalization(*options.normalize, *model.mutable_graph()));
  }
  SetMetadata(options.metadata, model);
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
    if (total <= options.inline_bytes) {
      PutInside(tensor, found->second.data, wanted.bytes());
      continue;
    }
    constexpr size_t kPage = 4096;  // so that the file can be mapped
    whole.data.resize((whole.data.size() + kPage - 1) / kPage * kPage);
    tensor.clear_external_data();
    for (const auto& [key, value] :
         std::map<std::string, std::string>{{"location", options.data_file},
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
