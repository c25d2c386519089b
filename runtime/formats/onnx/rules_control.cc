// Branches, loops, sequences and optionals: settled at import, so that the graph has none.
#include <algorithm>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_control {

using Kind = HostValue::Kind;

void If(Call& c) {
  const bool condition = c.Number(0, "the condition") != 0;
  std::vector<Ref> results = c.Subgraph(c.Graph(condition ? "then_branch" : "else_branch"), {});
  for (size_t i = 0; i < results.size(); ++i) c.SetRef(static_cast<int>(i), std::move(results[i]));
}

// Unrolled. The body's outputs: go on?, the carried values, then one slice per result per turn.
void Loop(Call& c) {
  const int64_t turns = c.has(0) ? c.Integers(0, "the number of turns").at(0) : INT64_MAX;
  bool go_on = !c.has(1) || c.Number(1, "the condition") != 0;
  std::vector<Ref> carried;
  for (int i = 2; i < c.inputs(); ++i) carried.push_back(c.ref(i));
  const auto& body = c.Graph("body");
  const size_t kept = carried.size();
  std::vector<std::vector<Id>> slices(
      std::max<int64_t>(0, body.output_size() - 1 - static_cast<int64_t>(kept)));
  for (int64_t turn = 0; turn < turns && go_on; ++turn) {
    HostTensor number = TensorOf({turn});
    number.type.shape = {};
    std::vector<Ref> arguments = {{Kind::kTensor, c.b.Constant(std::move(number)), {}},
                                  {Kind::kTensor, c.b.Scalar(DType::kBool, 1), {}}};
    arguments.insert(arguments.end(), carried.begin(), carried.end());
    std::vector<Ref> results = c.Subgraph(body, std::move(arguments));
    if (results.size() < kept + 1) FailInvalid("body: has too few outputs");
    c.b.CheckNoMarks(results[0].id);
    go_on = AsIntegers(c.b.Evaluate(results[0].id, "the condition")).at(0) != 0;
    for (size_t i = 0; i < kept; ++i) carried[i] = results[i + 1];
    for (size_t i = 0; i < slices.size(); ++i) {
      slices[i].push_back(c.b.Unsqueeze(results[i + 1 + kept].id, {0}));
    }
  }
  for (size_t i = 0; i < kept; ++i) c.SetRef(static_cast<int>(i), carried[i]);
  for (size_t i = 0; i < slices.size(); ++i) {
    if (slices[i].empty()) FailUnsupported("a loop of no turns that collects results");
    c.Set(static_cast<int>(kept + i), c.b.Concat(slices[i], 0));
  }
}

std::vector<Ref> Items(const Call& c, int index) {
  if (c.ref(index).kind != Kind::kSequence) {
    FailInvalid("input " + std::to_string(index) + " must be a sequence");
  }
  return c.ref(index).items;
}

// A position in a sequence; `size` itself when it may be one past the end.
size_t Position(Call& c, int index, size_t size, bool past_end) {
  int64_t at = c.Integers(index, "the position").at(0);
  const auto count = static_cast<int64_t>(size);
  if (at < 0) at += count;
  if (at < 0 || at > count - (past_end ? 0 : 1)) FailInvalid("position outside of the sequence");
  return static_cast<size_t>(at);
}

void SequenceAt(Call& c) {
  const std::vector<Ref> items = Items(c, 0);
  c.SetRef(0, items[Position(c, 1, items.size(), false)]);
}

void SequenceConstruct(Call& c) {
  Ref ref{Kind::kSequence, graph::kNoValue, {}};
  for (int i = 0; i < c.inputs(); ++i) ref.items.push_back(c.ref(i));
  c.SetRef(0, std::move(ref));
}

void SequenceEmpty(Call& c) {
  c.SetRef(0, {Kind::kSequence, graph::kNoValue, {}});
}

void SequenceErase(Call& c) {
  std::vector<Ref> items = Items(c, 0);
  if (items.empty()) FailInvalid("an empty sequence");
  items.erase(items.begin() + static_cast<int64_t>(c.has(1) ? Position(c, 1, items.size(), false)
                                                            : items.size() - 1));
  c.SetRef(0, {Kind::kSequence, graph::kNoValue, std::move(items)});
}

void SequenceInsert(Call& c) {
  std::vector<Ref> items = Items(c, 0);
  const size_t at = c.has(2) ? Position(c, 2, items.size(), true) : items.size();
  items.insert(items.begin() + static_cast<int64_t>(at), c.ref(1));
  c.SetRef(0, {Kind::kSequence, graph::kNoValue, std::move(items)});
}

void SequenceLength(Call& c) {
  HostTensor tensor = TensorOf({static_cast<int64_t>(Items(c, 0).size())});
  tensor.type.shape = {};
  c.Set(0, c.b.Constant(std::move(tensor)));
}

// The body for every element; what are not sequences are given each time.
void SequenceMap(Call& c) {
  const size_t count = Items(c, 0).size();
  std::vector<Ref> results;
  for (size_t i = 0; i < count; ++i) {
    std::vector<Ref> arguments;
    for (int k = 0; k < c.inputs(); ++k) {
      const bool sequence = c.ref(k).kind == Kind::kSequence;
      if (sequence && c.ref(k).items.size() != count) FailInvalid("sequences of unequal length");
      arguments.push_back(sequence ? c.ref(k).items[i] : c.ref(k));
    }
    const std::vector<Ref> made = c.Subgraph(c.Graph("body"), std::move(arguments));
    results.resize(made.size(), {Kind::kSequence, graph::kNoValue, {}});
    for (size_t k = 0; k < made.size(); ++k) results[k].items.push_back(made[k]);
  }
  for (size_t k = 0; k < results.size(); ++k) c.SetRef(static_cast<int>(k), results[k]);
}

void Optional(Call& c) {
  if (c.inputs() > 0)
    c.SetRef(0, c.ref(0));
  else
    c.SetRef(0, {});
}

void OptionalGetElement(Call& c) {
  if (!c.has(0)) FailInvalid("an empty optional has no element");
  c.SetRef(0, c.ref(0));
}

void OptionalHasElement(Call& c) {
  c.Set(0, c.b.Scalar(DType::kBool, c.has(0) ? 1 : 0));
}

// A test of the operator sets' own: whether an attribute is there.
void AttributeHasValue(Call& c) {
  bool has = false;
  for (const char* name :
       {"value_float", "value_floats", "value_graph", "value_graphs", "value_int", "value_ints",
        "value_sparse_tensor", "value_sparse_tensors", "value_string", "value_strings",
        "value_tensor", "value_tensors", "value_type_proto", "value_type_protos"}) {
    has |= c.HasAttribute(name);
  }
  c.Set(0, c.b.Scalar(DType::kBool, has ? 1 : 0));
}

constexpr Rule kRules[] = {
    {"AttributeHasValue", 18, "attributes", AttributeHasValue},
    {"If", 1, "all but text", If},
    {"Loop", 1, "all but text", Loop},
    {"Optional", 15, "all but text", Optional},
    {"OptionalGetElement", 15, "all but text", OptionalGetElement},
    {"OptionalHasElement", 15, "all but text", OptionalHasElement},
    {"SequenceAt", 11, "all but text", SequenceAt},
    {"SequenceConstruct", 11, "all but text", SequenceConstruct},
    {"SequenceEmpty", 11, "all but text", SequenceEmpty},
    {"SequenceErase", 11, "all but text", SequenceErase},
    {"SequenceInsert", 11, "all but text", SequenceInsert},
    {"SequenceLength", 11, "all but text", SequenceLength},
    {"SequenceMap", 17, "all but text", SequenceMap},
};

}  // namespace rules_control

std::span<const Rule> ControlRules() {
  return rules_control::kRules;
}

}  // namespace lepton::onnx
