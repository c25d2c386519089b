#include <cmath>

#include "runtime/formats/onnx/importer.h"

namespace lepton::onnx {

int Call::outputs() const {
  return node_.output_size();
}

bool Call::wants(int output) const {
  return output < node_.output_size() && !node_.output(output).empty();
}

const Ref& Call::ref(int index) const {
  if (index >= inputs()) FailInvalid("input " + std::to_string(index) + " is missing");
  return inputs_[index];
}

Id Call::in(int index) const {
  const Id id = whole(index);
  if (joined(index)) FailJoined(b.shape(id));
  return id;
}

int Call::OwnAxis(int index, int64_t axis) const {
  const Groups of = groups(index);
  const int at = b.Axis(axis, static_cast<int>(of.size()));
  if (of[at] > 1) FailJoined(b.shape(whole(index)));
  return FirstOf(of, at);
}

Id Call::whole(int index) const {
  if (ref(index).kind != HostValue::Kind::kTensor) {
    FailInvalid("input " + std::to_string(index) + " must be a tensor");
  }
  return inputs_[index].id;
}

HostTensor Call::Value(int index, std::string_view what) {
  b.CheckNoMarks(in(index));
  return b.Evaluate(in(index), what);
}

Ints Call::Integers(int index, std::string_view what) {
  if (b.HasMarks(in(index))) {
    FailUnsupported(std::string(what) + " follows from an open extent");
  }
  return AsIntegers(b.Evaluate(in(index), what));
}

Ints Call::Marked(int index, std::string_view what) {
  if (!b.HasLengthsOnly(in(index))) {
    FailUnsupported(std::string(what) + " is computed from an open extent");
  }
  return AsIntegers(b.Evaluate(in(index), what));
}

double Call::Number(int index, std::string_view what) {
  const std::vector<double> numbers = AsDoubles(Value(index, what));
  if (numbers.size() != 1) FailInvalid(std::string(what) + " must be one number");
  return numbers[0];
}

const onnx_proto::AttributeProto* Call::Find(std::string_view name) const {
  for (const auto& attribute : node_.attribute()) {
    if (attribute.name() != name) continue;
    if (!attribute.ref_attr_name().empty()) FailUnsupported("attributes by reference");
    return &attribute;
  }
  return nullptr;
}

int64_t Call::Int(std::string_view name, int64_t fallback) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr) return fallback;
  if (!attribute->has_i()) FailInvalid(std::string(name) + ": must be an integer");
  return attribute->i();
}

double Call::Float(std::string_view name, double fallback) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr) return fallback;
  if (!attribute->has_f()) FailInvalid(std::string(name) + ": must be a number");
  return attribute->f();
}

std::string Call::Text(std::string_view name, std::string fallback) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr) return fallback;
  if (!attribute->has_s()) FailInvalid(std::string(name) + ": must be text");
  return attribute->s();
}

Ints Call::List(std::string_view name, Ints fallback) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr) return fallback;
  for (const int64_t number : attribute->ints()) {
    if (std::abs(static_cast<double>(number)) > 2147483648.0) {
      FailInvalid(std::string(name) + ": numbers must fit 32 bits");
    }
  }
  return {attribute->ints().begin(), attribute->ints().end()};
}

std::vector<double> Call::Floats(std::string_view name) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr) return {};
  return {attribute->floats().begin(), attribute->floats().end()};
}

HostTensor Call::Tensor(std::string_view name) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr || !attribute->has_t()) {
    FailInvalid(std::string(name) + ": must be a tensor");
  }
  return Must(DecodeTensor(attribute->t(), b.options().external, b.options().limits));
}

const onnx_proto::GraphProto& Call::Graph(std::string_view name) const {
  const auto* attribute = Find(name);
  if (attribute == nullptr || !attribute->has_g()) {
    FailInvalid(std::string(name) + ": must be a graph");
  }
  return attribute->g();
}

Ints Call::Axes(int64_t since, int index, int rank, bool* given) {
  Ints axes;
  if (version_ >= since) {
    if (has(index)) axes = Integers(index, "axes");
  } else {
    axes = List("axes");
  }
  if (given != nullptr) *given = !axes.empty();
  if (axes.empty()) return AllAxes(rank);
  for (int64_t& axis : axes) axis = b.Axis(axis, rank);
  return axes;
}

void Call::SetRef(int output, Ref ref) {
  if (static_cast<int>(results_.size()) <= output) results_.resize(output + 1);
  results_[output] = std::move(ref);
}

std::vector<Ref> Call::Subgraph(const onnx_proto::GraphProto& graph, std::vector<Ref> arguments) {
  return importer_.Subgraph(graph, std::move(arguments));
}

}  // namespace lepton::onnx
