#include "runtime/formats/onnx/emitter.h"

#include <algorithm>
#include <cctype>

namespace lepton::onnx {

using graph::ValueId;

namespace {

constexpr int32_t kFloatCode = 1, kInt64Code = 7, kInt32Code = 6;

int32_t TypeCode(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kBF16:  // rounded numbers, kept as f32
      return kFloatCode;
    case DType::kI32:
      return kInt32Code;
    case DType::kI64:
      return kInt64Code;
    case DType::kBool:
      return 9;
    default:
      FailUnsupported("a value of type " + std::string(DTypeName(dtype)));
  }
}

void SetAttribute(onnx_proto::AttributeProto& proto, const Emitter::Attribute& value) {
  enum { kFloat = 1, kInt = 2, kText = 3, kInts = 7 };
  if (const auto* number = std::get_if<int64_t>(&value)) {
    proto.set_type(kInt);
    proto.set_i(*number);
  } else if (const auto* real = std::get_if<double>(&value)) {
    proto.set_type(kFloat);
    proto.set_f(static_cast<float>(*real));
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    proto.set_type(kText);
    proto.set_s(*text);
  } else {
    proto.set_type(kInts);
    for (const int64_t number : std::get<Ints>(value)) proto.add_ints(number);
  }
}

void SetType(onnx_proto::ValueInfoProto& info, int32_t type, const Shape& shape) {
  auto* tensor = info.mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(type);
  tensor->mutable_shape();
  for (const int64_t extent : shape.extents()) {
    auto* dim = tensor->mutable_shape()->add_dim();
    if (extent >= 0) {
      dim->set_dim_value(extent);
    } else {
      dim->set_dim_param(extent == Shape::kBatch ? "batch" : "sequence");
    }
  }
}

template <typename T>
std::string_view Bytes(const std::vector<T>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T)};
}

}  // namespace

const Emitter::Name& Emitter::name(ValueId id) const {
  const auto found = names_.find(id);
  if (found == names_.end()) FailUnsupported("a result that only training needs");
  return found->second;
}

void Emitter::Set(ValueId id, Name name) {
  names_[id] = std::move(name);
}

Emitter::Name Emitter::Unique(std::string name) {
  if (name.empty()) name = "value";
  Name unique = name;
  for (int i = 1; !taken_.insert(unique).second; ++i) unique = name + "." + std::to_string(i);
  return unique;
}

Emitter::Name Emitter::Node(std::string_view op, std::vector<Name> inputs, Attributes attributes) {
  auto* node = graph_.add_node();
  node->set_op_type(std::string(op));
  for (Name& input : inputs) node->add_input(std::move(input));
  for (const auto& [key, value] : attributes) {
    auto* attribute = node->add_attribute();
    attribute->set_name(key);
    SetAttribute(*attribute, value);
  }
  std::string lower(op);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const Name output = Unique(context_.empty() ? lower : context_ + "/" + lower);
  node->set_name(output);
  node->add_output(output);
  return output;
}

Emitter::Name Emitter::Initializer(Name name, int32_t type, const Ints& extents,
                                   std::string_view bytes) {
  auto* tensor = graph_.add_initializer();
  tensor->set_name(name);
  tensor->set_data_type(type);
  for (const int64_t extent : extents) tensor->add_dims(extent);
  constexpr size_t kSmall = 1024;
  if (!external_ || bytes.size() < kSmall) {
    tensor->set_raw_data(bytes.data(), bytes.size());
    return name;
  }
  constexpr size_t kPage = 4096;  // so that the file can be mapped
  data_.resize((data_.size() + kPage - 1) / kPage * kPage);
  const auto add = [&](const char* key, std::string value) {
    auto* entry = tensor->add_external_data();
    entry->set_key(key);
    entry->set_value(std::move(value));
  };
  tensor->set_data_location(1);
  add("location", request_.data_file);
  add("offset", std::to_string(data_.size()));
  add("length", std::to_string(bytes.size()));
  data_.append(bytes);
  return name;
}

Emitter::Name Emitter::Integers(const Ints& numbers) {
  std::string key = "i64";
  for (const int64_t number : numbers) key += "_" + std::to_string(number);
  return Shared(key, [&] {
    return Initializer(Unique("const." + key), kInt64Code, {static_cast<int64_t>(numbers.size())},
                       Bytes(numbers));
  });
}

Emitter::Name Emitter::Integer(int64_t number) {
  const std::string key = "i64s_" + std::to_string(number);
  return Shared(key, [&] {
    return Initializer(Unique("const." + key), kInt64Code, {}, Bytes(Ints{number}));
  });
}

Emitter::Name Emitter::Float(double number) {
  const auto value = static_cast<float>(number);
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return Shared("f32_" + std::to_string(bits), [&] {
    return Initializer(Unique("const.f32"), kFloatCode, {}, Bytes(std::vector<float>{value}));
  });
}

Emitter::Name Emitter::Floats(const Ints& extents, const std::vector<float>& numbers) {
  return Initializer(Unique("const.f32"), kFloatCode, extents, Bytes(numbers));
}

Emitter::Name Emitter::Reshape(const Name& x, const Ints& extents) {
  return Node("Reshape", {x, Integers(extents)});
}

Emitter::Name Emitter::Transpose(const Name& x, const Ints& order) {
  return Node("Transpose", {x}, {{"perm", order}});
}

Emitter::Name Emitter::Slice(const Name& x, int64_t axis, int64_t begin, int64_t end,
                             int64_t step) {
  return Node("Slice", {x, Integers({begin}), Integers({end}), Integers({axis}), Integers({step})});
}

Emitter::Name Emitter::Unsqueeze(const Name& x, const Ints& axes) {
  return Node("Unsqueeze", {x, Integers(axes)});
}

Emitter::Name Emitter::ExtentOf(const Name& x, int64_t axis) {
  const Name one = Node("Shape", {x}, {{"start", axis}, {"end", axis + 1}});
  return Node("Squeeze", {one, Integers({0})});
}

Emitter::Name Emitter::Range(const Name& count) {
  return Node("Range", {Integer(0), count, Integer(1)});
}

Emitter::Name Emitter::Shared(const std::string& key, const std::function<Name()>& make) {
  const auto found = shared_.find(key);
  if (found != shared_.end()) return found->second;
  return shared_[key] = make();
}

Emitter::Name Emitter::InputAs(const std::string& name, int32_t type, const Shape& shape) {
  auto* info = graph_.add_input();
  info->set_name(Unique(name));
  SetType(*info, type, shape);
  return info->name();
}

void Emitter::AddInput(ValueId id) {
  const graph::Value& value = request_.graph->value(id);
  const Shape& shape = value.type.shape;
  context_ = value.name;
  if (value.type.dtype == DType::kI32 && (value.name == "tokens" || value.name == "token_types")) {
    const Name ids =
        InputAs(value.name == "tokens" ? "input_ids" : "token_type_ids", kInt64Code, shape);
    return Set(id, Node("Cast", {ids}, {{"to", int64_t{kInt32Code}}}));
  }
  if (value.type.dtype == DType::kF32 && value.name == "mask") {
    const Name kept = ToF32(InputAs("attention_mask", kInt64Code, shape));
    return Set(id, Node("Mul", {Node("Sub", {Float(1), kept}), Float(-1e9)}));
  }
  Name name = InputAs(value.name, TypeCode(value.type.dtype), shape);
  if (request_.normalize && request_.normalize->input == value.name) {
    const auto& [input, mean, scale] = *request_.normalize;
    const bool image = shape.rank() == 4;
    const int64_t count = image ? shape[1] : shape.back();
    if (static_cast<int64_t>(mean.size()) != count || mean.size() != scale.size()) {
      FailInvalid("mean and scale must have a number per feature or channel of " +
                  shape.ToString());
    }
    const Ints extents = image ? Ints{1, count, 1, 1} : Ints{count};
    const Name means = Floats(extents, mean);
    if (!image) name = Node("Where", {Node("IsNaN", {name}), means, name});
    name = Node("Div", {Node("Sub", {name, means}), Floats(extents, scale)});
  }
  Set(id, name);
}

void Emitter::AddWeight(ValueId id) {
  const graph::Value& value = request_.graph->value(id);
  const auto found = request_.weights.find(id);
  if (found == request_.weights.end() || found->second.type != value.type) {
    FailInvalid("parameter '" + value.name + "' has no weight of type " + value.type.ToString());
  }
  if (value.type.dtype != DType::kF32) FailUnsupported("a weight of " + value.type.ToString());
  Set(id, Initializer(Unique(value.name), kFloatCode, value.type.shape.extents(),
                      {static_cast<const char*>(found->second.data), found->second.type.bytes()}));
}

void Emitter::AddOutput(const ExportRequest::Output& output) {
  context_.clear();
  // A node of its own: the value may be an input, or be asked for twice.
  auto* node = graph_.add_node();
  node->set_op_type("Identity");
  node->add_input(name(output.value));
  const Name unique = Unique(output.name);
  node->set_name(unique);
  node->add_output(unique);
  auto* info = graph_.add_output();
  info->set_name(unique);
  SetType(*info, TypeCode(type(output.value).dtype), shape(output.value));
}

void Emitter::Run() {
  const graph::Graph& graph = *request_.graph;
  std::vector<bool> needed(graph.values().size());
  for (const auto& output : request_.outputs) {
    needed[output.value] = true;
    taken_.insert(output.name);  // kept free for it
  }
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const graph::Node& node = graph.nodes()[i];
    if (std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return needed[v]; }))
      for (const ValueId input : node.inputs) needed[input] = true;
  }
  int64_t bytes = 0;
  for (const auto& [id, weight] : request_.weights)
    bytes += static_cast<int64_t>(weight.type.bytes());
  external_ = bytes > request_.inline_bytes;
  for (size_t i = 0; i < needed.size(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (graph.value(id).kind == graph::ValueKind::kInput) AddInput(id);
    if (graph.value(id).kind == graph::ValueKind::kParameter && needed[i]) AddWeight(id);
  }
  for (const graph::Node& node : graph.nodes()) {
    if (std::none_of(node.outputs.begin(), node.outputs.end(),
                     [&](ValueId output) { return needed[output]; })) {
      continue;
    }
    context_ = node.name.empty() ? std::string(node.op->name()) : node.name;
    const ExportRule* rule = FindExport(node.op->name());
    if (rule == nullptr || rule->apply == nullptr) {
      FailUnsupported("op " + std::string(node.op->name()) + " of '" + context_ + "' has no form " +
                      "in ONNX" + (rule == nullptr ? "" : ": " + std::string(rule->reason)));
    }
    rule->apply(*this, node);
  }
  for (const auto& output : request_.outputs) {
    taken_.erase(output.name);
    AddOutput(output);
  }
}

}  // namespace lepton::onnx
