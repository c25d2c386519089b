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
    if (extent < 0) FailInvalid("a negative extent");
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

std::vector<Id> Builder::Nodes(std::string_view op, std::vector<Id> inputs, Attributes attributes) {
  if (static_cast<int64_t>(model_.graph->nodes().size()) >= options_.limits.nodes) {
    Fail(ResourceExhausted("more than " + std::to_string(options_.limits.nodes) + " nodes"));
  }
  const auto outputs =
      Must(model_.graph->AddNode(op, std::move(inputs), std::move(attributes), context_));
  for (const Id output : outputs) CheckSize(type(output));
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
  const Id id = model_.graph->AddParameter("constant", tensor.type);
  model_.constants.emplace(id, std::move(tensor));
  return id;
}

Id Builder::Input(const std::string& name, const TensorType& type, const HostTensor* known) {
  CheckSize(type);
  const Id id = model_.graph->AddInput(name, type);
  if (known != nullptr) known_inputs_[id] = known;
  return id;
}

HostTensor Builder::Evaluate(Id id, std::string_view what) {
  if (const auto found = model_.constants.find(id); found != model_.constants.end()) {
    return found->second.Copy();
  }
  if (const auto found = evaluated_.find(id); found != evaluated_.end()) {
    return found->second.Copy();
  }
  // The part of the graph that the value depends on.
  graph::Graph part = *model_.graph;
  std::vector<bool> needed(part.values().size());
  needed[id] = true;
  for (size_t i = part.nodes().size(); i-- > 0;) {
    const graph::Node& node = part.nodes()[i];
    if (std::none_of(node.outputs.begin(), node.outputs.end(),
                     [&](Id output) { return needed[output]; })) {
      continue;
    }
    for (const Id input : node.inputs) needed[input] = true;
  }
  std::vector<TensorType> inputs;
  for (size_t i = 0; i < needed.size(); ++i) {
    const graph::Value& value = part.values()[i];
    if (value.kind != graph::ValueKind::kInput) continue;
    inputs.push_back(value.type);
    if (!needed[i]) continue;
    if (!known_inputs_.contains(static_cast<Id>(i))) {
      FailUnsupported(std::string(what) + " depends on the value of input '" + value.name +
                      "', which is not known at import");
    }
    if (std::find(model_.specialised.begin(), model_.specialised.end(), value.name) ==
        model_.specialised.end()) {
      model_.specialised.push_back(value.name);
    }
  }
  HostTensor result(type(id));
  if (known_inputs_.contains(id)) {
    result = known_inputs_[id]->Copy();
  } else {
    Status added = part.AddOutput(id, true);
    if (!added.ok()) Fail(added);
    const auto types = Must(graph::InferTypes(part, inputs));
    const auto memory = graph::PlanMemory(part, graph::ScheduleLiveNodes(part), types);
    if (static_cast<int64_t>(memory.peak_bytes) > options_.limits.total_bytes) {
      Fail(ResourceExhausted(std::string(what) + " takes too much memory to compute"));
    }
    const auto plan = Must(graph::Plan::Make(part, ImportKernels(), {}, inputs));
    for (size_t i = 0; i < needed.size(); ++i) {
      const Id source = static_cast<Id>(i);
      if (const auto found = model_.constants.find(source); found != model_.constants.end()) {
        plan->Bind(source, found->second.data.data());
      } else if (const auto known = known_inputs_.find(source); known != known_inputs_.end()) {
        plan->Bind(source, const_cast<void*>(known->second->data.data()));
      }
    }
    plan->Bind(id, result.data.data());
    plan->RunPrologue({});
    plan->Run({});
  }
  HostTensor copy = result.Copy();
  evaluated_.emplace(id, std::move(result));
  return copy;
}

Id Builder::Unary(std::string_view function, Id x) {
  if (dtype(x) == DType::kF32 && (function == "tanh" || function == "sigmoid")) {
    return Node(function, {x});
  }
  return Node("unary_math", {x}, {{"function", std::string(function)}});
}

Id Builder::Binary(std::string_view function, Id a, Id b) {
  const bool core = function == "add" || function == "sub" || function == "mul";
  if (core && dtype(a) == DType::kF32 && dtype(b) == DType::kF32) return Node(function, {a, b});
  return Node("binary_math", {a, b}, {{"function", std::string(function)}});
}

Id Builder::Convert(Id x, DType to) {
  if (dtype(x) == to) return x;
  return Node("convert", {x}, {{"to", std::string(DTypeName(to))}});
}

}  // namespace lepton::onnx
