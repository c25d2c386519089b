#include "runtime/nn/onnx_model.h"

#include <algorithm>
#include <numeric>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/graph/autodiff.h"
#include "runtime/nn/onnx_context.h"

namespace lepton::nn {

using graph::Graph;
using graph::ValueId;

namespace {

using onnx_proto::ModelProto;
using onnx_proto::ValueInfoProto;

Result<ModelProto> ParseGraph(const spec::ModelSpec& model) {
  if (model.onnx_graph == nullptr) {
    return FailedPrecondition("model.arch: onnx is for stored models: give model.onnx or from");
  }
  ModelProto proto;
  LEPTON_RETURN_IF_ERROR(onnx::ParseModel(*model.onnx_graph, &proto));
  return proto;
}

struct ModelInput {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> extents;  // -1: open or unknown
  size_t batch = 0;              // the axis of rows
};

// The axis that is called so, or the only open one; else the first. A first one of 1 is a batch of
// one that the exporter fixed: the open one is the length then.
size_t BatchAxis(const onnx_proto::TensorShapeProto& shape, const std::vector<int64_t>& extents) {
  for (int axis = 0; axis < shape.dim_size(); ++axis) {
    if (shape.dim(axis).dim_param().starts_with("batch")) return static_cast<size_t>(axis);
  }
  if (!extents.empty() && extents[0] == 1) return 0;
  const auto open = std::find(extents.begin(), extents.end(), -1);
  return std::count(extents.begin(), extents.end(), -1) == 1 ? open - extents.begin() : 0;
}

Result<std::vector<ModelInput>> InputsOf(const ModelProto& proto) {
  std::vector<ModelInput> inputs;
  for (const ValueInfoProto& info : proto.graph().input()) {
    const auto& initializers = proto.graph().initializer();
    if (std::any_of(initializers.begin(), initializers.end(),
                    [&](const auto& tensor) { return tensor.name() == info.name(); })) {
      continue;
    }
    ModelInput input{info.name(), DType::kF32, {}};
    const auto& tensor = info.type().tensor_type();
    auto dtype = onnx::DTypeFromCode(tensor.elem_type());
    if (!dtype.ok()) return dtype.status().WithContext("input '" + info.name() + "'");
    input.dtype = *dtype;
    for (const auto& dim : tensor.shape().dim()) {
      input.extents.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
    }
    if (input.extents.empty()) {
      return FailedPrecondition("input '" + info.name() + "' has no batch axis");
    }
    input.batch = BatchAxis(tensor.shape(), input.extents);
    inputs.push_back(std::move(input));
  }
  if (inputs.empty()) return FailedPrecondition("the model has no inputs");
  return inputs;
}

bool Named(const std::string& name, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return name.find(part) != std::string::npos; });
}

// Of PyTorch's attention: true for what is no token. Other names with "pad" are used both ways.
bool MarksPadding(const ModelInput& input) {
  return Named(input.name, {"key_padding_mask"}) && !IsFloating(input.dtype);
}

Status CheckMask(const ModelInput& input) {
  if (!Named(input.name, {"pad"}) || MarksPadding(input)) return Status::Ok();
  return FailedPrecondition(
      "model.onnx: input '" + input.name +
      "': whether it marks tokens or padding is not known: call it " +
      "attention_mask (1 for a token), or key_padding_mask (true for padding)");
}

// The name by which the data gives a text's input; "" when it is none.
std::string TextRole(const ModelInput& input, size_t inputs) {
  if (input.extents.size() != 2) return "";
  if (Named(input.name, {"type_ids", "token_type", "segment"})) return "token_types";
  if (Named(input.name, {"mask"})) return "mask";
  const bool integer = input.dtype == DType::kI64 || input.dtype == DType::kI32;
  if (integer && (inputs == 1 || Named(input.name, {"input_ids", "tokens", "ids"}))) {
    return "tokens";
  }
  return "";
}

int64_t Columns(const ModelInput& input) {
  int64_t columns = 1;
  for (size_t i = 0; i < input.extents.size(); ++i) {
    const int64_t extent = i == input.batch ? 1 : input.extents[i];
    constexpr int64_t kMost = int64_t{1} << 31;
    if (extent < 1 || columns > kMost / extent) return -1;
    columns *= extent;
  }
  return columns;
}

Status Wrong(const std::string& message) {
  return InvalidArgument("model.onnx: " + message);
}

// [batch, ..] with the batch as another axis, or back to the front from there.
Result<ValueId> MoveBatch(Graph& graph, ValueId x, size_t axis, bool back) {
  if (axis == 0) return x;
  std::vector<int64_t> perm(graph.type(x).shape.rank());
  std::iota(perm.begin(), perm.end(), int64_t{0});
  const auto begin = perm.begin(), end = begin + static_cast<std::ptrdiff_t>(axis) + 1;
  std::rotate(begin, back ? end - 1 : begin + 1, end);
  return graph.Add("transpose", {x}, {{"perm", perm}});
}

// x's columns for an input, in its type and shape.
Result<ValueId> PartOf(Graph& graph, ValueId x, int64_t begin, const ModelInput& input) {
  const int64_t columns = Columns(input);
  if (begin != 0 || columns != graph.type(x).shape.back()) {
    LEPTON_ASSIGN_OR_RETURN(x, graph.Add("slice", {x},
                                         {{"axis", int64_t{1}},
                                          {"begin", begin},
                                          {"end", begin + columns},
                                          {"step", int64_t{1}}}));
  }
  std::vector<int64_t> extents = input.extents;
  extents.erase(extents.begin() + static_cast<std::ptrdiff_t>(input.batch));
  extents.insert(extents.begin(), Shape::kBatch);
  if (extents.size() != 2) {
    LEPTON_ASSIGN_OR_RETURN(x, graph.Add("reshape", {x}, {{"shape", extents}}));
  }
  LEPTON_ASSIGN_OR_RETURN(x, MoveBatch(graph, x, input.batch, false));
  if (input.dtype == DType::kF32) return x;
  return graph.Add("convert", {x}, {{"to", std::string(DTypeName(input.dtype))}});
}

Result<ValueId> TextInput(Graph& graph, ValueId given, const ModelInput& input) {
  if (graph.type(given).dtype == DType::kF32) {  // the additive mask: 0 for a token
    const std::string function = MarksPadding(input) ? "less" : "greater_equal";
    LEPTON_ASSIGN_OR_RETURN(const ValueId zero, graph.Add("fill", {given}, {{"value", 0.0}}));
    LEPTON_ASSIGN_OR_RETURN(given,
                            graph.Add("binary_math", {given, zero}, {{"function", function}}));
  }
  LEPTON_ASSIGN_OR_RETURN(given, MoveBatch(graph, given, input.batch, false));
  if (graph.type(given).dtype == input.dtype) return given;
  return graph.Add("convert", {given}, {{"to", std::string(DTypeName(input.dtype))}});
}

Result<std::map<std::string, ValueId>> Adapt(Graph& graph, const std::vector<ModelInput>& wanted,
                                             const Signature& signature,
                                             std::span<const ValueId> given) {
  std::map<std::string, ValueId> adapted;
  int64_t column = 0;
  for (const ModelInput& input : wanted) {
    const std::string& first = signature.inputs.front().name;
    if (first == "x") {
      LEPTON_ASSIGN_OR_RETURN(adapted[input.name], PartOf(graph, given[0], column, input));
      column += Columns(input);
      continue;
    }
    const std::string role = first == "pixels" ? "pixels" : TextRole(input, wanted.size());
    for (size_t i = 0; i < given.size(); ++i) {
      if (signature.inputs[i].name != role) continue;
      LEPTON_ASSIGN_OR_RETURN(adapted[input.name], first == "pixels"
                                                       ? Result<ValueId>(given[i])
                                                       : TextInput(graph, given[i], input));
    }
  }
  return adapted;
}

// The first floating output as f32 [batch, n], or [batch, sequence, n] with one per token.
Result<ValueId> LogitsOf(Graph& graph, const std::vector<onnx::NamedRef>& outputs) {
  for (const onnx::NamedRef& output : outputs) {
    if (output.ref.kind != onnx::HostValue::Kind::kTensor) continue;
    ValueId y = output.ref.id;
    const std::vector<int64_t>& extents = graph.type(y).shape.extents();
    if (!IsFloating(graph.type(y).dtype) || extents.empty()) continue;
    const auto batch = std::find(extents.begin(), extents.end(), Shape::kBatch);
    if (batch == extents.end()) {
      return Wrong("output '" + output.name + "' is " + graph.type(y).ToString() +
                   "; one of its axes must be the batch");
    }
    LEPTON_ASSIGN_OR_RETURN(y, MoveBatch(graph, y, batch - extents.begin(), true));
    const Shape shape = graph.type(y).shape;
    if (graph.type(y).dtype != DType::kF32) {
      LEPTON_ASSIGN_OR_RETURN(y, graph.Add("convert", {y}, {{"to", "f32"}}));
    }
    const bool tokens = shape.rank() == 3 && shape[1] == Shape::kSequence;
    if (tokens || shape.rank() == 2) return y;
    int64_t columns = 1;
    for (int axis = 1; axis < shape.rank(); ++axis) {
      if (shape[axis] < 1) {
        return Wrong("output '" + output.name + "' is " + graph.type(y).ToString());
      }
      columns *= shape[axis];
    }
    return graph.Add("reshape", {y}, {{"shape", std::vector<int64_t>{Shape::kBatch, columns}}});
  }
  return Wrong("no output of a floating type");
}

// The inputs that the data gives, without the outputs.
Result<Signature> InputSignature(const std::vector<ModelInput>& inputs, const DataShape& data) {
  Signature signature;
  if (data.kind == DataShape::Kind::kFeatures) {
    int64_t columns = 0;
    for (const ModelInput& input : inputs) {
      if (Columns(input) < 1) {
        return Wrong("input '" + input.name +
                     "' has no fixed row: of its axes only the batch may be open (dynamic_axes), "
                     "but for those of texts");
      }
      columns += Columns(input);
    }
    if (columns != data.features) {
      return Wrong("the model takes " + std::to_string(columns) +
                   " numbers a row, but the data has " + std::to_string(data.features) +
                   " features");
    }
    return Signature::Features(columns, 0);
  }
  if (data.kind == DataShape::Kind::kImages) {
    const ModelInput& input = inputs.front();
    const std::vector<int64_t> given = {data.channels, data.height, data.width};
    bool fits = inputs.size() == 1 && input.extents.size() == 4 && input.batch == 0 &&
                input.dtype == DType::kF32;
    for (size_t i = 0; fits && i < 3; ++i) {
      fits = input.extents[i + 1] < 0 || input.extents[i + 1] == given[i];
    }
    if (!fits) {
      return Wrong("input '" + input.name + "' does not take pictures of " +
                   Shape(given).ToString());
    }
    signature.inputs = {
        {"pixels", {DType::kF32, {Shape::kBatch, data.channels, data.height, data.width}}}};
    return signature;
  }
  for (const ModelInput& input : inputs) {
    if (TextRole(input, inputs.size()) == "mask") LEPTON_RETURN_IF_ERROR(CheckMask(input));
  }
  for (const std::string role : {"tokens", "mask", "token_types"}) {
    const bool takes = std::any_of(inputs.begin(), inputs.end(), [&](const ModelInput& input) {
      return TextRole(input, inputs.size()) == role;
    });
    if (!takes) continue;
    const DType dtype = role == "mask" ? DType::kF32 : DType::kI32;
    const int64_t limit = role == "tokens" ? data.vocabulary : role == "token_types" ? 2 : 0;
    signature.inputs.push_back({role, {dtype, {Shape::kBatch, Shape::kSequence}}, limit});
  }
  if (signature.inputs.size() != inputs.size() || signature.inputs.front().name != "tokens") {
    return Wrong("its inputs are not those of texts: input_ids, attention_mask, token_type_ids");
  }
  return signature;
}

Result<ValueId> ImportLogits(Graph& graph, const ModelProto& proto, const Signature& signature,
                             std::span<const ValueId> inputs,
                             std::function<ValueId(const std::string&, const TensorType&)> add) {
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ModelInput> wanted, InputsOf(proto));
  onnx::Embedding embedding;
  embedding.graph = &graph;
  LEPTON_ASSIGN_OR_RETURN(embedding.inputs, Adapt(graph, wanted, signature, inputs));
  embedding.parameter = std::move(add);
  auto outputs = onnx::ImportInto(proto, embedding);
  if (!outputs.ok()) return outputs.status().WithContext("model.onnx");
  return LogitsOf(graph, *outputs);
}

struct Scratch {
  Graph graph{onnx::ImportOps()};
  std::vector<ValueId> weights;
  ValueId logits = graph::kNoValue;
};
Result<std::unique_ptr<Scratch>> Try(const ModelProto& proto, const Signature& signature) {
  auto scratch = std::make_unique<Scratch>();
  std::vector<ValueId> inputs;
  for (const InputSpec& input : signature.inputs) {
    inputs.push_back(scratch->graph.AddInput(input.name, input.type));
  }
  const auto add = [&](const std::string& name, const TensorType& type) {
    scratch->weights.push_back(scratch->graph.AddParameter(name, type));
    return scratch->weights.back();
  };
  LEPTON_ASSIGN_OR_RETURN(scratch->logits,
                          ImportLogits(scratch->graph, proto, signature, inputs, add));
  return scratch;
}

// The rows of the table that tokens are looked up in; 0 where none is found.
int64_t TableRows(const Graph& graph) {
  for (const graph::Node& node : graph.nodes()) {
    if (node.op->name() != "gather" && node.op->name() != "take") continue;
    ValueId ids = node.inputs[1];
    for (graph::NodeId made = graph.value(ids).producer;
         made != graph::kNoNode && graph.nodes()[made].op->name() == "convert";
         made = graph.value(ids).producer) {
      ids = graph.nodes()[made].inputs[0];
    }
    const Shape& table = graph.type(node.inputs[0]).shape;
    if (ids == graph.FindSource("tokens") && table.rank() == 2) return table[0];
  }
  return 0;
}

}  // namespace

Result<Signature> OnnxSignature(const spec::ModelSpec& model, const DataShape& data) {
  LEPTON_ASSIGN_OR_RETURN(const ModelProto proto, ParseGraph(model));
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ModelInput> inputs, InputsOf(proto));
  LEPTON_ASSIGN_OR_RETURN(Signature signature, InputSignature(inputs, data));
  LEPTON_ASSIGN_OR_RETURN(const auto scratch, Try(proto, signature));
  const Shape& logits = scratch->graph.type(scratch->logits).shape;
  signature.outputs = logits.back();
  signature.per_token = logits.rank() == 3;
  if (signature.per_token != data.per_token) {
    return Wrong(signature.per_token ? "its output is per token, but the data has an answer per row"
                                     : "its output is per row, but the data has one per token");
  }
  // Ids behind the table would give numbers that mean nothing.
  if (const int64_t rows = TableRows(scratch->graph); rows > 0) {
    int64_t& limit = signature.inputs.front().limit;
    limit = limit == 0 ? rows : std::min(limit, rows);
  }
  const int64_t context = ContextOf(scratch->graph);
  if (context > 0 && data.context > context) {
    return Wrong("context: the model has places for " + std::to_string(context) +
                 " tokens, the data has up to " + std::to_string(data.context));
  }
  const bool vocabulary = signature.per_token && data.outputs == 0;
  if (!vocabulary && data.outputs != signature.outputs) {
    return Wrong("the model gives " + std::to_string(signature.outputs) +
                 " outputs, but the data has " + std::to_string(data.outputs));
  }
  return signature;
}

Result<ValueId> BuildOnnx(ModelBuilder& builder, const Signature& signature,
                          const spec::ModelSpec& model, std::span<const ValueId> inputs) {
  LEPTON_ASSIGN_OR_RETURN(const ModelProto proto, ParseGraph(model));
  return ImportLogits(builder.graph(), proto, signature, inputs,
                      [&](const std::string& name, const TensorType& type) {
                        return builder.Parameter(name, type.shape, FirstValues::Constant(0));
                      });
}

Result<int64_t> OnnxContext(const spec::ModelSpec& model) {
  LEPTON_ASSIGN_OR_RETURN(const ModelProto proto, ParseGraph(model));
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ModelInput> inputs, InputsOf(proto));
  DataShape texts;
  texts.kind = DataShape::Kind::kTokens;
  LEPTON_ASSIGN_OR_RETURN(const Signature signature, InputSignature(inputs, texts));
  LEPTON_ASSIGN_OR_RETURN(const auto scratch, Try(proto, signature));
  return ContextOf(scratch->graph);
}

Result<OnnxFacts> ExamineOnnx(const spec::ModelSpec& model) {
  LEPTON_ASSIGN_OR_RETURN(const ModelProto proto, ParseGraph(model));
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ModelInput> inputs, InputsOf(proto));
  OnnxFacts facts;
  DataShape& data = facts.data;
  const bool texts = std::all_of(inputs.begin(), inputs.end(), [&](const ModelInput& input) {
    return !TextRole(input, inputs.size()).empty();
  });
  if (texts && std::any_of(inputs.begin(), inputs.end(), [&](const ModelInput& input) {
        return TextRole(input, inputs.size()) == "tokens";
      })) {
    data.kind = DataShape::Kind::kTokens;
  } else if (inputs.size() == 1 && inputs[0].extents.size() == 4 && Columns(inputs[0]) > 0 &&
             inputs[0].batch == 0 && inputs[0].dtype == DType::kF32) {
    data.kind = DataShape::Kind::kImages;
    data.channels = inputs[0].extents[1];
    data.height = inputs[0].extents[2];
    data.width = inputs[0].extents[3];
  } else {
    for (const ModelInput& input : inputs) data.features += std::max<int64_t>(0, Columns(input));
  }
  facts.kind = data.kind;
  LEPTON_ASSIGN_OR_RETURN(const Signature signature, InputSignature(inputs, data));
  LEPTON_ASSIGN_OR_RETURN(const auto scratch, Try(proto, signature));
  const Shape& logits = scratch->graph.type(scratch->logits).shape;
  data.outputs = logits.back();
  data.per_token = logits.rank() == 3;
  for (const graph::Value& value : scratch->graph.values()) {
    double bytes = static_cast<double>(DTypeSize(value.type.dtype));
    for (const int64_t extent : value.type.shape.extents()) {
      bytes *= extent == Shape::kBatch ? 2 : extent == Shape::kSequence ? 32 : extent;
    }
    facts.bytes += bytes;
  }
  const int64_t tokens = TableRows(scratch->graph);
  data.vocabulary = tokens;
  data.context = data.kind == DataShape::Kind::kTokens ? ContextOf(scratch->graph) : 0;
  if (data.per_token && tokens != 0 && tokens != data.outputs) {
    return Wrong("it gives " + std::to_string(data.outputs) + " numbers per token, but looks up " +
                 std::to_string(tokens) + " tokens: of the models with an output per token, only " +
                 "language models can be stored");
  }
  const auto gradients = graph::AddGradients(scratch->graph, scratch->logits, scratch->weights);
  facts.trains = gradients.ok() && !scratch->weights.empty();
  if (!gradients.ok()) facts.reason = gradients.status().message();
  if (scratch->weights.empty()) facts.reason = "the model has no weights of f32";
  return facts;
}

}  // namespace lepton::nn
