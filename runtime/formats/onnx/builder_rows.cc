// What keeps the rows of an open batch apart. A program pads a batch with whatever its buffers
// hold, and joins or divides batches at will, so in a graph that a model is put into each row's
// results follow from that row alone; whatever else a model does with its batch is refused, where
// it is done or, of numbers of rows, where the model gives out what was computed from them.
#include <algorithm>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx {
namespace {

constexpr const char* kMixes = "a result of one row that depends on other rows of the batch";

int64_t Batches(const Shape& shape) {
  const Ints& extents = shape.extents();
  return std::count(extents.begin(), extents.end(), Shape::kBatch);
}

// What lies before the batch in a row of its tensor: known elements, and open axes.
std::pair<int64_t, int64_t> BeforeBatch(const Shape& shape) {
  std::pair<int64_t, int64_t> before = {1, 0};
  for (const int64_t extent : shape.extents()) {
    if (extent == Shape::kBatch) break;
    if (extent < 0) ++before.second;
    if (extent >= 0) before.first *= extent;
  }
  return before;
}

// Ops that compute each element from those at its own place, or move it with its row.
bool WorksByElement(std::string_view op) {
  return IsOneOf(op, {"add",  "batch_norm", "bias_add",  "binary_math", "constant",  "convert",
                      "div",  "gelu",       "gelu_tanh", "index_range", "mul",       "pad_constant",
                      "relu", "repeat",     "reshape",   "scale",       "select",    "sigmoid",
                      "silu", "sub",        "tanh",      "transpose",   "unary_math"});
}

// Ops that move what they are given, and no more.
bool OnlyMoves(std::string_view op) {
  return IsOneOf(op, {"concat", "join", "repeat", "reshape", "transpose"});
}

}  // namespace

// Whether an input's axis is one along which the node works.
bool Builder::WorksAlong(const graph::Node& node, size_t input, int axis) {
  const std::string_view op = node.op->name();
  const int last = rank(node.inputs[input]) - 1;
  const auto named = [&] { return Axis(node.attributes.Int("axis"), last + 1) == axis; };
  if (WorksByElement(op)) return false;
  if (IsOneOf(op, {"concat", "join"})) return named();
  if (IsOneOf(op, {"arg_extreme", "cumulative_sum", "reduce", "slice", "top_k"})) return named();
  if (op == "reduce_axes") {
    const Ints axes = node.attributes.Ints("axes");
    return std::find(axes.begin(), axes.end(), axis) != axes.end();
  }
  if (IsOneOf(op, {"log_softmax", "softmax"})) return axis == last;
  if (IsOneOf(op, {"layer_norm", "rms_norm"})) return input > 0 || axis == last;
  if (op == "attention") return axis == 1;
  if (IsOneOf(op, {"average_pool2d", "max_pool2d"})) return axis >= 2;
  if (op == "conv2d") return input > 0 || axis >= 1;
  if (op == "matmul") {
    if (input == 0) return (node.attributes.Int("transpose_a") != 0) == (axis != last);
    return (node.attributes.Int("transpose_b") != 0) == (axis == last);
  }
  if (op == "batch_matmul" || op == "general_matmul") {
    const bool swapped = node.attributes.Int(input == 0 ? "transpose_a" : "transpose_b") != 0;
    return axis == ((input == 0) != swapped ? last : last - 1);
  }
  return true;  // of others nothing is known
}

// Whether every element is the number of the row that it belongs to.
bool Builder::IsOwnRow(Id id) const {
  for (const char* op : {"convert", "repeat", "reshape", "transpose"}) {
    if (const graph::Node* node = Producer(id, op)) return IsOwnRow(node->inputs[0]);
  }
  return Producer(id, "index_range") != nullptr && Batches(shape(id)) == 1;
}

// Indices of rows must be those of the element's own row; others must not say where a row lies.
void Builder::CheckIndices(Id indices, bool of_rows) const {
  const bool fits = of_rows ? IsOwnRow(indices) : !row_numbers_.contains(indices);
  if (!fits) FailUnsupported(kMixes);
}

// The last axis of the indices is a place in axes of x from `first` on.
void Builder::CheckPlaces(Id x, Id indices, int first) const {
  Ints axes;
  for (int axis = 0; axis < shape(indices).back(); ++axis) {
    if (shape(x)[first + axis] == Shape::kBatch) axes.push_back(axis);
  }
  while (const graph::Node* node = Producer(indices, "convert")) indices = node->inputs[0];
  const graph::Node* joined = Producer(indices, "concat");
  if (joined == nullptr) joined = Producer(indices, "join");
  if (joined == nullptr || joined->attributes.Int("axis") != rank(indices) - 1) {
    if (axes.empty() || shape(indices).back() == 1) return CheckIndices(indices, !axes.empty());
    FailUnsupported(kMixes);
  }
  int64_t begin = 0;
  for (const Id part : joined->inputs) {
    const int64_t end = begin + shape(part).back();
    const bool of_rows = std::any_of(axes.begin(), axes.end(),
                                     [&](int64_t axis) { return axis >= begin && axis < end; });
    if (of_rows && end - begin != 1) FailUnsupported(kMixes);
    CheckIndices(part, of_rows);
    begin = end;
  }
}

// False: the node does not choose elements by indices.
bool Builder::CheckChoice(const graph::Node& node) {
  const std::string_view op = node.op->name();
  const bool by_element = IsOneOf(op, {"gather_elements", "scatter_elements"});
  const bool by_place = IsOneOf(op, {"gather_nd", "scatter_nd"});
  if (!by_element && !by_place && !IsOneOf(op, {"gather", "take"})) return false;
  const Id x = node.inputs[0], indices = node.inputs[1];
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i != 1 && row_numbers_.contains(node.inputs[i])) FailUnsupported(kMixes);
  }
  if (by_place) {
    CheckPlaces(x, indices, static_cast<int>(node.attributes.Int("batch_axes")));
    // Each row writes into its own.
    const bool own = shape(x).rank() > 0 && Batches(shape(x)) == Batches(shape(indices));
    if (op == "scatter_nd" && Batches(shape(indices)) > 0 && !own) FailUnsupported(kMixes);
    return true;
  }
  const int along = Axis(node.attributes.Int("axis"), rank(x));
  CheckIndices(indices, shape(x)[along] == Shape::kBatch);
  for (int axis = 0; by_element && axis < rank(x); ++axis) {
    const bool rows = shape(indices)[axis] == Shape::kBatch;
    const bool same = (shape(x)[axis] == Shape::kBatch) == rows;
    const bool shared = axis == along && op == "gather_elements";
    if (!same && !shared) FailUnsupported(kMixes);
  }
  return true;
}

void Builder::CheckApart(Id id) const {
  const auto found = mixed_.find(id);
  if (found != mixed_.end()) FailUnsupported(kMixes + (", computed by " + found->second));
}

void Builder::CheckRows(const graph::Node& node) {
  if (embedding_ == nullptr) return;
  const std::string_view op = node.op->name();
  for (const Id output : node.outputs) {
    if (Batches(shape(output)) > 1) FailUnsupported(kMixes);
  }
  // `repeat` takes of other inputs than the first their extents.
  const size_t count = op == "repeat" ? 1 : node.inputs.size();
  bool numbers = false;
  for (size_t i = 0; i < count; ++i) {
    numbers |= row_numbers_.contains(node.inputs[i]);
    // What is computed from it is mixed too, and refused where it is given out; that it is there
    // to have its shape asked for is no harm.
    const auto mixed = mixed_.find(node.inputs[i]);
    if (mixed == mixed_.end()) continue;
    const std::string origin = mixed->second;
    for (const Id output : node.outputs) mixed_.emplace(output, origin);
  }
  if (CheckChoice(node)) return;
  for (size_t i = 0; i < count; ++i) {
    const Shape& extents = shape(node.inputs[i]);
    for (int axis = 0; axis < extents.rank(); ++axis) {
      if (extents[axis] == Shape::kBatch && WorksAlong(node, i, axis)) FailUnsupported(kMixes);
    }
  }
  const Id output = node.outputs[0];
  if (op == "reshape" && BeforeBatch(shape(node.inputs[0])) != BeforeBatch(shape(output))) {
    FailUnsupported(kMixes);
  }
  // Where a row lies in its batch says nothing of the row: it may be used to find the row again.
  const bool integers =
      op == "convert" && !IsFloating(dtype(output)) && dtype(output) != DType::kBool;
  if (numbers && !OnlyMoves(op) && !integers) {
    for (const Id made : node.outputs) mixed_.emplace(made, context_);
    return;
  }
  if (numbers || (op == "index_range" && Batches(shape(output)) > 0)) row_numbers_.insert(output);
}

}  // namespace lepton::onnx
