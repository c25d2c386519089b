#include "runtime/formats/onnx/importer.h"

#include <algorithm>

namespace lepton::onnx {
namespace {

std::string Label(const onnx_proto::NodeProto& node) {
  std::string label = node.op_type();
  if (!node.name().empty()) label += " '" + node.name() + "'";
  if (node.name().empty() && node.output_size() > 0) label += " of '" + node.output(0) + "'";
  return label;
}

bool IsLeftWeight(const onnx_proto::TensorProto& tensor) {
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == "location" && entry.value() == kWeightsFile) {
      return tensor.data_location() == 1;
    }
  }
  return false;
}

// What may be the last of a known pattern: see Builder::Simplify.
bool EndsPattern(const std::string& op) {
  return op == "Add" || op == "Mul" || op == "Reshape" || op == "Transpose";
}

}  // namespace

void Importer::AddInitializers(const onnx_proto::GraphProto& graph, Scope& scope) {
  for (const auto& initializer : graph.initializer()) {
    if (embedding_ != nullptr && IsLeftWeight(initializer)) {
      const TensorType type{Must(DTypeFromCode(initializer.data_type())),
                            Shape({initializer.dims().begin(), initializer.dims().end()})};
      const Id id = embedding_->parameter(initializer.name(), type);
      if (builder_.type(id) != type) FailInvalid("weight '" + initializer.name() + "'");
      scope[initializer.name()] = {HostValue::Kind::kTensor, id, {}};
      continue;
    }
    HostTensor tensor = Must(DecodeTensor(initializer, options_.external, options_.limits));
    scope[initializer.name()] = {
        HostValue::Kind::kTensor, builder_.Constant(std::move(tensor)), {}};
  }
}

Ref Importer::InputTensor(const std::string& name, const onnx_proto::TypeProto& type,
                          const HostTensor* value) {
  TensorType declared;
  const onnx_proto::TypeProto* tensor = &type;
  while (tensor->has_optional_type() || tensor->has_sequence_type()) {
    tensor = tensor->has_optional_type() ? &tensor->optional_type().elem_type()
                                         : &tensor->sequence_type().elem_type();
  }
  declared.dtype = Must(DTypeFromCode(tensor->tensor_type().elem_type()));
  if (value != nullptr) {
    if (value->type.dtype != declared.dtype) {
      FailInvalid("input '" + name + "' is " + value->type.ToString() + "; must be of type " +
                  std::string(DTypeName(declared.dtype)));
    }
    declared.shape = value->type.shape;
  } else {
    Ints extents;
    for (const auto& dim : tensor->tensor_type().shape().dim()) {
      if (options_.open && (!dim.has_dim_value() || dim.dim_value() < 0)) {
        extents.push_back(OpenExtent(dim, static_cast<int>(extents.size())));
        continue;
      }
      if (!dim.has_dim_value()) {
        FailInvalid("input '" + name + "' has an open shape: give its value");
      }
      extents.push_back(dim.dim_value());
    }
    declared.shape = Shape(std::move(extents));
  }
  return {HostValue::Kind::kTensor, builder_.Input(name, declared, value), {}};
}

// The first axis of an input is the batch, and one more may be open.
int64_t Importer::OpenExtent(const onnx_proto::TensorShapeProto_Dimension& dim, int axis) {
  const int64_t extent = axis == 0 ? Shape::kBatch : Shape::kSequence;
  if (dim.dim_param().empty()) return extent;
  const auto [found, added] = open_names_.try_emplace(dim.dim_param(), extent);
  if (!added) return found->second;
  for (const auto& [name, other] : open_names_) {
    if (other == extent && name != dim.dim_param()) {
      FailUnsupported("more than two open extents: " + name + ", " + dim.dim_param());
    }
  }
  return extent;
}

void Importer::AdoptInput(const onnx_proto::ValueInfoProto& info) {
  const auto found = embedding_->inputs.find(info.name());
  if (found == embedding_->inputs.end()) FailInvalid("nothing is given for '" + info.name() + "'");
  builder_.Adopt(found->second);
  scopes_.back()[info.name()] = {HostValue::Kind::kTensor, found->second, {}};
}

void Importer::AddInput(const onnx_proto::ValueInfoProto& info) {
  const auto found = given_.find(info.name());
  Ref ref;
  if (found == given_.end()) {
    if (!info.type().has_tensor_type()) FailInvalid("input '" + info.name() + "' needs a value");
    ref = InputTensor(info.name(), info.type(), nullptr);
  } else if (found->second.kind == HostValue::Kind::kTensor) {
    ref = InputTensor(info.name(), info.type(), &found->second.tensor);
  } else if (found->second.kind == HostValue::Kind::kSequence) {
    ref.kind = HostValue::Kind::kSequence;
    for (size_t i = 0; i < found->second.items.size(); ++i) {
      ref.items.push_back(InputTensor(info.name() + "." + std::to_string(i), info.type(),
                                      &found->second.items[i].tensor));
    }
  }
  model_.inputs.push_back({info.name(), ref});
  scopes_.back()[info.name()] = std::move(ref);
}

const Ref& Importer::Lookup(const std::string& name) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    const auto found = scopes_[i].find(name);
    if (found != scopes_[i].end()) return found->second;
  }
  FailInvalid("'" + name + "' is not known here: no node before gives it, or the graph is cyclic");
}

int64_t Importer::Version(const std::string& domain) const {
  for (const auto& set : proto_.opset_import()) {
    if (set.domain() == domain || (domain == "ai.onnx" && set.domain().empty())) {
      return set.version();
    }
  }
  if (domain.empty()) FailInvalid("the model does not say which operator set it uses");
  FailInvalid("the model uses operators of '" + domain + "' without naming their version");
}

void Importer::CountNode() {
  if (++applied_ > options_.limits.nodes) {
    Fail(ResourceExhausted("more than " + std::to_string(options_.limits.nodes) + " nodes"));
  }
}

void Importer::Apply(const onnx_proto::NodeProto& node) {
  CountNode();
  const std::string domain = node.domain() == "ai.onnx" ? "" : node.domain();
  const Rule* rule = FindRule(domain, node.op_type());
  if (rule == nullptr) {
    FailUnsupported("operator " + (domain.empty() ? "" : domain + ".") + node.op_type());
  }
  const int64_t version = Version(domain);
  if (domain.empty() && (version < rule->since || version > kNewestOperatorSet)) {
    FailUnsupported(node.op_type() + " of operator set " + std::to_string(version) + "; from " +
                    std::to_string(rule->since) + " to " + std::to_string(kNewestOperatorSet));
  }
  std::vector<Ref> inputs;
  for (const std::string& name : node.input()) {
    inputs.push_back(name.empty() ? Ref{} : Lookup(name));
  }
  builder_.set_context(Label(node));
  const auto joined = [&](const Ref& ref) { return IsJoined(GroupsOf(builder_, ref)); };
  const bool align = rule->by_element && std::any_of(inputs.begin(), inputs.end(), joined);
  Groups groups = align ? Align(builder_, inputs) : Groups();
  Call call(builder_, *this, node, version, std::move(inputs));
  rule->apply(call);
  if (align) {
    const Id result = call.results()[0].id;
    // Of fewer axes where the input with the most gives no more than its type.
    while (FirstOf(groups, static_cast<int>(groups.size())) > builder_.rank(result)) {
      groups.erase(groups.begin());
    }
    call.Set(0, result, std::move(groups));
  }
  if (EndsPattern(node.op_type()) && call.results()[0].kind == HostValue::Kind::kTensor) {
    call.Set(0, builder_.Simplify(call.results()[0].id), call.results()[0].groups);
  }
  for (int i = 0; i < node.output_size(); ++i) {
    if (node.output(i).empty()) continue;
    if (i >= static_cast<int>(call.results().size())) {
      FailUnsupported("output " + std::to_string(i) + " of " + node.op_type());
    }
    if (scopes_.back().contains(node.output(i))) {
      FailInvalid("'" + node.output(i) + "' is given twice");
    }
    scopes_.back()[node.output(i)] = call.results()[i];
  }
}

std::vector<Ref> Importer::Subgraph(const onnx_proto::GraphProto& graph,
                                    std::vector<Ref> arguments) {
  if (static_cast<int>(arguments.size()) != graph.input_size()) {
    FailInvalid("a subgraph with " + std::to_string(graph.input_size()) + " inputs is given " +
                std::to_string(arguments.size()));
  }
  CountNode();  // a turn of a loop is one too, or a loop without any would have no end
  scopes_.emplace_back();
  for (int i = 0; i < graph.input_size(); ++i) {
    scopes_.back()[graph.input(i).name()] = std::move(arguments[i]);
  }
  AddInitializers(graph, scopes_.back());
  for (const auto& node : graph.node()) {
    try {
      Apply(node);
    } catch (const ImportFailure& failure) {
      Fail(failure.status.WithContext(Label(node)));
    }
  }
  std::vector<Ref> results;
  for (const auto& output : graph.output()) {
    results.push_back(Lookup(output.name()));
    if (IsJoined(GroupsOf(builder_, results.back()))) {
      FailJoined(builder_.shape(results.back().id));
    }
  }
  scopes_.pop_back();
  return results;
}

void Importer::Run() {
  const auto& graph = proto_.graph();
  scopes_.emplace_back();
  AddInitializers(graph, scopes_.back());
  for (const auto& input : graph.input()) {
    // Before IR version 4 initializers are listed among the inputs.
    if (scopes_.back().contains(input.name())) continue;
    if (embedding_ == nullptr) {
      AddInput(input);
    } else {
      AdoptInput(input);
    }
  }
  for (const auto& node : graph.node()) {
    try {
      Apply(node);
    } catch (const ImportFailure& failure) {
      Fail(failure.status.WithContext(Label(node)));
    }
  }
  if (graph.output_size() == 0) FailInvalid("the graph has no outputs");
  for (const auto& output : graph.output()) {
    const Ref& ref = Lookup(output.name());
    model_.outputs.push_back({output.name(), ref});
    if (ref.kind != HostValue::Kind::kTensor) continue;
    if (IsJoined(GroupsOf(builder_, ref))) FailJoined(builder_.shape(ref.id));
    builder_.CheckNoMarks(ref.id);
    builder_.CheckApart(ref.id);
  }
}

void Importer::AddOutputs() {
  for (const NamedRef& output : model_.outputs) {
    const auto add = [&](const Ref& item) {
      if (!item.present()) return;
      const Status added = model_.graph->AddOutput(item.id, false);
      if (!added.ok()) Fail(added);
    };
    if (output.ref.kind == HostValue::Kind::kTensor) add(output.ref);
    for (const Ref& item : output.ref.items) add(item);
  }
}

}  // namespace lepton::onnx
