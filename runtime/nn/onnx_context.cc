#include "runtime/nn/onnx_context.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace lepton::nn {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;

// Of a value: the largest number in it, as far as it is known.
struct Most {
  std::optional<int64_t> constant;  // of a constant, also its least below
  std::optional<int64_t> least;
  std::optional<int64_t> places;  // with the sequence's length added to it
};

template <typename T>
void ReadExtremes(const std::string& bytes, Most& most) {
  for (size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
    T number;
    std::memcpy(&number, bytes.data() + at, sizeof(T));
    most.constant = std::max<int64_t>(most.constant.value_or(number), number);
    most.least = std::min<int64_t>(most.least.value_or(number), number);
  }
}

Most OfConstant(const Graph& graph, const Node& node) {
  Most most;
  const std::string bytes = node.attributes.Text("data");
  const DType dtype = graph.type(node.outputs[0]).dtype;
  if (dtype == DType::kI64) ReadExtremes<int64_t>(bytes, most);
  if (dtype == DType::kI32) ReadExtremes<int32_t>(bytes, most);
  return most;
}

Most OfSum(const Most& a, const Most& b) {
  Most most;
  if (a.places && b.constant) most.places = *a.places + *b.constant;
  if (b.places && a.constant) most.places = *b.places + *a.constant;
  return most;
}

Most OfBinary(const Node& node, const Most& a, const Most& b) {
  const std::string function = node.attributes.Text("function");
  Most most;
  if (function == "add") return OfSum(a, b);
  if (function == "sub" && a.places && b.least) most.places = *a.places - *b.least;
  // A place by a mask.
  if (function == "mul" && a.places.has_value() != b.places.has_value()) {
    const Most& other = a.places ? b : a;
    if (other.constant.value_or(1) == 1) most.places = a.places ? a.places : b.places;
  }
  if (function == "mul" && a.places && b.places) most.places = std::max(*a.places, *b.places);
  return most;
}

}  // namespace

int64_t ContextOf(const Graph& graph) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  std::vector<Most> values(graph.values().size());
  int64_t context = 0;
  const auto extent = [&](ValueId id, const Node& node) {
    const Shape& shape = graph.type(id).shape;
    const int64_t axis = node.attributes.Int("axis");
    return shape.rank() == 0 ? 0 : shape[static_cast<int>(axis < 0 ? axis + shape.rank() : axis)];
  };
  for (const Node& node : graph.nodes()) {
    const std::string_view op = node.op->name();
    Most& made = values[node.outputs[0]];
    if (op == "constant") {
      made = OfConstant(graph, node);
    } else if (op == "index_range") {
      if (extent(node.inputs[0], node) == Shape::kSequence) made.places = -1;
    } else if (op == "cumulative_sum") {
      if (extent(node.inputs[0], node) == Shape::kSequence) made.places = 0;
    } else if (op == "convert" || op == "reshape" || op == "repeat" || op == "transpose") {
      made = values[node.inputs[0]];
    } else if (op == "binary_math") {
      made = OfBinary(node, values[node.inputs[0]], values[node.inputs[1]]);
    } else if (op == "gather" || op == "take") {
      const std::optional<int64_t> places = values[node.inputs[1]].places;
      const int64_t rows = extent(node.inputs[0], node);
      if (rows > 0 && places && *places > -kLargest && rows - 1 - *places > 0) {
        const int64_t longest = rows - 1 - *places;
        context = context == 0 ? longest : std::min(context, longest);
      }
    }
    if (made.places && (*made.places > kLargest || *made.places < -kLargest)) made = {};
    if (made.constant && (*made.constant > kLargest || *made.least < -kLargest)) made = {};
  }
  return context;
}

}  // namespace lepton::nn
