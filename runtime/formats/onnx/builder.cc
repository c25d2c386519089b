#include "runtime/formats/onnx/builder.h"

#include <algorithm>
#include <numeric>

#include "runtime/graph/passes/live_nodes.h"
#include "runtime/graph/passes/memory_plan.h"
#include "runtime/graph/shape_inference.h"

namespace lepton::onnx {

using graph::Attributes;

void FailUnsupported(std::string message) {
  Fail(FailedPrecondition("not supported: " + std::move(message)));
}

void FailInvalid(std::string message) {
  Fail(InvalidArgument(std::move(message)));
}

Ints AllAxes(int rank) {
  Ints axes(rank);
  std::iota(axes.begin(), axes.end(), int64_t{0});
  return axes;
}

int64_t Product(const Ints& extents) {
  int64_t product = 1;
  for (const int64_t extent : extents) {
    if (extent < 0 || __builtin_mul_overflow(product, extent, &product)) {
      FailInvalid("a shape with a negative extent or beyond 64 bits");
    }
  }
  return product;
}

void Builder::CheckSize(const TensorType& type) {
  int64_t bytes = static_cast<int64_t>(DTypeSize(type.dtype));
  bool empty = false;
  for (const int64_t extent : type.shape.extents()) {
    if (extent < 0 && extent != Shape::kBatch && extent != Shape::kSequence) {
      FailInvalid("a negative extent");
    }
    empty |= extent == 0;
    if (extent > 0 && __builtin_mul_overflow(bytes, extent, &bytes)) {
      FailInvalid("a shape beyond 64 bits");
    }
  }
  if (!empty && bytes > options_.limits.value_bytes) {
    Fail(ResourceExhausted("a value of " + std::to_string(bytes) + " bytes; at most " +
                           std::to_string(options_.limits.value_bytes)));
  }
}

void Builder::CheckElements(int64_t count, DType dtype) const {
  const int64_t bytes = options_.limits.value_bytes;
  if (count <= bytes / static_cast<int64_t>(DTypeSize(dtype))) return;
  Fail(ResourceExhausted("a value of " + std::to_string(count) + " elements; at most " +
                         std::to_string(bytes) + " bytes"));
}

std::vector<Id> Builder::Nodes(std::string_view op, std::vector<Id> inputs, Attributes attributes) {
  if (static_cast<int64_t>(graph_.nodes().size()) >= options_.limits.nodes) {
    Fail(ResourceExhausted("more than " + std::to_string(options_.limits.nodes) + " nodes"));
  }
  const auto outputs = Must(graph_.AddNode(op, inputs, std::move(attributes), context_));
  for (const Id output : outputs) CheckSize(type(output));
  CheckRows(graph_.nodes()[graph_.value(outputs.front()).producer]);
  Track(inputs, outputs);
  return outputs;
}

Id Builder::Node(std::string_view op, std::vector<Id> inputs, Attributes attributes) {
  return Nodes(op, std::move(inputs), std::move(attributes)).front();
}

Id Builder::Constant(HostTensor tensor) {
  constant_bytes_ += static_cast<int64_t>(tensor.type.bytes());
  if (constant_bytes_ > options_.limits.total_bytes) {
    Fail(ResourceExhausted("constants of more than " + std::to_string(options_.limits.total_bytes) +
                           " bytes"));
  }
  Id id = graph::kNoValue;
  if (embedding_ == nullptr) {
    id = graph_.AddParameter("constant", tensor.type);
  } else {
    id = Node("constant", {},
              {{"dtype", std::string(DTypeName(tensor.type.dtype))},
               {"shape", tensor.type.shape.extents()},
               {"data", std::string(tensor.data.as<char>(), tensor.type.bytes())}});
  }
  Track({}, {id});
  model_.constants.emplace(id, std::move(tensor));
  return id;
}

Id Builder::Input(const std::string& name, const TensorType& type, const HostTensor* known) {
  CheckSize(type);
  const Id id = graph_.AddInput(name, type);
  if (known != nullptr) known_inputs_[id] = known;
  FindOpenAxes(id);
  return id;
}

void Builder::FindOpenAxes(Id id) {
  for (int axis = 0; axis < rank(id); ++axis) {
    if (shape(id)[axis] < 0) open_axes_.try_emplace(shape(id)[axis], OpenAxis{id, axis});
  }
}

bool Builder::IsConstant(Id id) const {
  return static_cast<size_t>(id) < constant_.size() && constant_[id];
}

std::optional<double> Builder::Number(Id id) {
  if (!IsConstant(id) || marked_[id] || shape(id).elements() != 1) return std::nullopt;
  return AsDoubles(Evaluate(id, "a constant")).front();
}

const graph::Node* Builder::Producer(Id id, std::string_view op) const {
  const graph::NodeId node = graph_.value(id).producer;
  if (node == graph::kNoNode || graph_.nodes()[node].op->name() != op) return nullptr;
  return &graph_.nodes()[node];
}

HostTensor Builder::Evaluate(Id id, std::string_view what) {
  if (const auto found = model_.constants.find(id); found != model_.constants.end()) {
    return found->second.Copy();
  }
  if (const auto found = evaluated_.find(id); found != evaluated_.end()) {
    return found->second.Copy();
  }
  // The part of the graph that the value depends on, down to what is known.
  graph::Graph part(ImportOps());
  std::map<Id, Id> place;
  std::vector<std::pair<Id, const void*>> bound;
  std::set<graph::NodeId> needed;
  std::vector<Id> open = {id};
  while (!open.empty()) {
    const Id next = open.back();
    open.pop_back();
    if (place.contains(next)) continue;
    const HostTensor* known = nullptr;
    if (const auto found = model_.constants.find(next); found != model_.constants.end()) {
      known = &found->second;
    } else if (const auto cached = evaluated_.find(next); cached != evaluated_.end()) {
      known = &cached->second;
    } else if (const auto given = known_inputs_.find(next); given != known_inputs_.end()) {
      known = given->second;
      const std::string& name = graph_.value(next).name;
      auto& names = model_.specialised;
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    if (known != nullptr) {
      place[next] = part.AddParameter("known", known->type);
      bound.emplace_back(place[next], known->data.data());
      continue;
    }
    const graph::NodeId producer = graph_.value(next).producer;
    if (producer == graph::kNoNode) {
      FailUnsupported(std::string(what) + " depends on the value of '" + graph_.value(next).name +
                      "', which is not known at import");
    }
    if (!needed.insert(producer).second) continue;
    for (const Id input : graph_.nodes()[producer].inputs) open.push_back(input);
  }
  if (place.contains(id)) return {type(id), bound.front().second};
  for (const graph::NodeId node_id : needed) {
    const graph::Node& node = graph_.nodes()[node_id];
    std::vector<Id> inputs;
    for (const Id input : node.inputs) inputs.push_back(place.at(input));
    const auto outputs = Must(part.AddNode(node.op->name(), inputs, node.attributes, node.name));
    for (size_t i = 0; i < outputs.size(); ++i) place.emplace(node.outputs[i], outputs[i]);
  }
  // Small values on the way are kept, so that long chains are not computed again and again.
  constexpr size_t kSmall = 1 << 12;
  std::vector<Id> kept = {id};
  for (const auto& [ours, theirs] : place) {
    if (ours != id && part.value(theirs).kind == graph::ValueKind::kComputed &&
        part.type(theirs).bytes() <= kSmall) {
      kept.push_back(ours);
    }
  }
  for (const Id value : kept) {
    const Status added = part.AddOutput(place.at(value), false);
    if (!added.ok()) Fail(added);
  }
  const auto types = Must(graph::InferTypes(part, {}));
  const auto memory = graph::PlanMemory(part, graph::ScheduleLiveNodes(part), types);
  if (static_cast<int64_t>(memory.peak_bytes) > options_.limits.total_bytes) {
    Fail(ResourceExhausted(std::string(what) + " takes too much memory to compute"));
  }
  const auto plan = Must(graph::Plan::Make(part, ImportKernels(), {}, {}));
  for (const auto& [source, data] : bound) plan->Bind(source, const_cast<void*>(data));
  plan->RunPrologue({});
  plan->Run({});
  for (const Id value : kept) {
    const TensorView& view = plan->view(place.at(value));
    evaluated_.insert_or_assign(value, HostTensor(view.type, view.data));
  }
  return evaluated_.at(id).Copy();
}

HostTensor Compute(const graph::Node& node, std::vector<HostTensor> inputs) {
  graph::Graph part(ImportOps());
  std::vector<Id> ids;
  for (const HostTensor& input : inputs) ids.push_back(part.AddParameter("known", input.type));
  const Id output = Must(part.AddNode(node.op->name(), ids, node.attributes)).front();
  if (const Status added = part.AddOutput(output, false); !added.ok()) Fail(added);
  const auto plan = Must(graph::Plan::Make(part, ImportKernels(), {}, {}));
  for (size_t i = 0; i < ids.size(); ++i) plan->Bind(ids[i], inputs[i].data.data());
  plan->RunPrologue({});
  plan->Run({});
  return {plan->view(output).type, plan->view(output).data};
}

Id Builder::Unary(std::string_view function, Id x) {
  if (dtype(x) == DType::kF32 && (function == "tanh" || function == "sigmoid")) {
    return Node(function, {x});
  }
  return Node("unary_math", {x}, {{"function", std::string(function)}});
}

Id Builder::Scale(Id x, double factor) {
  return factor == 1 ? x : Node("scale", {x}, {{"factor", factor}});
}

Id Builder::Binary(std::string_view function, Id a, Id b) {
  const bool core =
      function == "add" || function == "sub" || function == "mul" || function == "div";
  if (!core || dtype(a) != DType::kF32 || dtype(b) != DType::kF32) {
    return Node("binary_math", {a, b}, {{"function", std::string(function)}});
  }
  if (function == "mul" && rank(b) <= rank(a) && !IsConstant(a)) {
    if (const auto factor = Number(b)) return Scale(a, *factor);
  }
  if (function == "mul" && rank(a) <= rank(b) && !IsConstant(b)) {
    if (const auto factor = Number(a)) return Scale(b, *factor);
  }
  const auto is_bias = [&](Id x, Id bias) {
    return rank(bias) == 1 && rank(x) >= 2 && shape(x).back() == shape(bias)[0] &&
           shape(bias)[0] > 0 && !IsEmpty(shape(x));
  };
  if (function == "add" && is_bias(a, b)) return Node("bias_add", {a, b});
  if (function == "add" && is_bias(b, a)) return Node("bias_add", {b, a});
  return Node(function, {a, b});
}

Id Builder::Convert(Id x, DType to) {
  if (dtype(x) == to) return x;
  // Token ids come as i32, models make i64 of them, and lookups take i32.
  if (const graph::Node* made = Producer(x, "convert");
      made != nullptr && dtype(x) == DType::kI64 && to == DType::kI32 &&
      dtype(made->inputs[0]) == DType::kI32) {
    return made->inputs[0];
  }
  return Node("convert", {x}, {{"to", std::string(DTypeName(to))}});
}

}  // namespace lepton::onnx
