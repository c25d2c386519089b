// What rules are written with: emits nodes into the graph and evaluates constants. Every call that
// fails throws ImportFailure, which Import() catches: rules are expressions, and an error anywhere
// in one ends the node. No exception leaves this folder.
// Ownership: the builder borrows the model that it fills. Threads: one caller.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/formats/onnx/import.h"

namespace lepton::onnx {

struct ImportFailure {
  Status status;
};

[[noreturn]] inline void Fail(Status status) {
  throw ImportFailure{std::move(status)};
}
[[noreturn]] void FailUnsupported(std::string message);
[[noreturn]] void FailInvalid(std::string message);

template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) Fail(result.status());
  return std::move(result).value();
}

using Id = graph::ValueId;
using Ints = std::vector<int64_t>;

// A length that a model asks for: a number times open extents, which are sorted.
struct Size {
  int64_t number = 1;
  Ints open = {};

  // Whether one axis of a tensor can have it, and then as its extent.
  bool plain() const { return open.empty() || (open.size() == 1 && number == 1); }
  int64_t extent() const { return open.empty() ? number : open[0]; }
};

// Open extents (Shape::kBatch, Shape::kSequence) travel through the integers of a model, which
// computes shapes from shapes, as marks: numbers of 32 bits that stand for them. Of each element of
// a small constant it is known whether it is a number, such a length, a product of lengths and a
// number, or computed from them otherwise: what is moved about works, a product where a shape is
// asked for, and what is computed is refused where its value would be needed.
class Builder {
 public:
  Builder(ImportedModel* model, graph::Graph* graph, const Embedding* embedding,
          const ImportOptions* options)
      : model_(*model), graph_(*graph), embedding_(embedding), options_(*options) {}

  // -- the graph
  std::vector<Id> Nodes(std::string_view op, std::vector<Id> inputs,
                        graph::Attributes attributes = {});
  Id Node(std::string_view op, std::vector<Id> inputs, graph::Attributes attributes = {});
  Id Constant(HostTensor tensor);
  Id Input(const std::string& name, const TensorType& type, const HostTensor* known);
  // An input that is there already: of a graph that the model is put into.
  void Adopt(Id id) { FindOpenAxes(id); }
  graph::Graph& graph() { return graph_; }
  const TensorType& type(Id id) const { return graph_.type(id); }
  const Shape& shape(Id id) const { return type(id).shape; }
  DType dtype(Id id) const { return type(id).dtype; }
  int rank(Id id) const { return shape(id).rank(); }
  // The value, if it follows from constants and given inputs; else fails, saying that `what` must.
  HostTensor Evaluate(Id id, std::string_view what);
  // Whether it follows from constants alone, and then its value if it is one number.
  bool IsConstant(Id id) const;
  std::optional<double> Number(Id id);
  // The node that gives the value, if its op is `op`.
  const graph::Node* Producer(Id id, std::string_view op) const;
  void set_context(std::string name) { context_ = std::move(name); }
  const ImportOptions& options() const { return options_; }
  // Fails when a value of so many elements would be beyond the limits: before it is made.
  void CheckElements(int64_t count, DType dtype) const;

  // -- open extents
  enum class Mark : uint8_t { kNumber, kLength, kProduct, kComputed };
  static bool IsMark(int64_t number) { return number == kBatchMark || number == kSequenceMark; }
  static int64_t ToMark(int64_t extent);       // an extent, open or not, as a number
  static int64_t FromMark(int64_t number);     // and back
  Id ShapeOf(const std::vector<Size>& sizes);  // i64 [n], open extents as marks
  // The elements of a constant as extents; fails when one is computed from a mark otherwise.
  std::vector<Size> Sizes(Id id, std::string_view what);
  Id Positions(int64_t extent);         // i64 [extent]: 0, 1, ...
  int64_t Merged(const Ints& extents);  // their product; fails for an open one times others
  bool HasMarks(Id id) const;
  bool HasLengthsOnly(Id id) const;  // and numbers
  // Fails when the value of a row depends on other rows of an open batch.
  void CheckApart(Id id) const;
  // Fails when the value depends on a mark.
  void CheckNoMarks(Id id);

  // -- element-wise; f32 goes to the fast ops of runtime/ops where there is one
  Id Unary(std::string_view function, Id x);
  Id Binary(std::string_view function, Id a, Id b);
  Id Binary(std::string_view function, Id a, double b) { return Binary(function, a, Like(a, b)); }
  Id Add(Id a, Id b) { return Binary("add", a, b); }
  Id Sub(Id a, Id b) { return Binary("sub", a, b); }
  Id Mul(Id a, Id b) { return Binary("mul", a, b); }
  Id Div(Id a, Id b) { return Binary("div", a, b); }
  Id Add(Id a, double b) { return Binary("add", a, b); }
  Id Mul(Id a, double b) { return Binary("mul", a, b); }
  Id Select(Id condition, Id a, Id b) { return Node("select", {condition, a, b}); }
  Id Convert(Id x, DType to);
  Id Scalar(DType dtype, double value) { return Constant(TensorOf(dtype, {}, {value})); }
  Id Like(Id x, double value) { return Scalar(dtype(x), value); }

  // -- shapes
  Id Reshape(Id x, Ints extents);
  Id Strided(Id x, Ints extents, Ints strides, int64_t offset = 0);
  Id Transpose(Id x, const Ints& order);
  // Elements start, start + step, ... of an axis; `count` of them.
  Id Slice(Id x, int axis, int64_t start, int64_t step, int64_t count);
  Id Expand(Id x, const Shape& to);
  Id Pad(Id x, Ints before, Ints after, double value);
  Id Concat(std::vector<Id> inputs, int64_t axis);
  Id Take(Id x, Id indices, int64_t axis);  // by indices of any integer type
  Id Squeeze(Id x, const Ints& axes);
  Id Unsqueeze(Id x, Ints axes);
  int Axis(int64_t axis, int rank) const;  // resolved; fails when outside

  // -- along axes
  Id Reduce(std::string_view function, Id x, const Ints& axes, bool keep = true);
  Id Matmul(Id a, Id b);  // of rank 2 or more, or 1
  Id Softmax(Id x, int64_t axis);
  Id LogSoftmax(Id x, int64_t axis);

  // The same value by fewer nodes, where those that give it are the parts of a known whole: gelu,
  // silu, layer_norm, rms_norm, attention. In patterns*.cc.
  Id Simplify(Id id);

 private:
  // Primes, so that a product has them as its factors.
  static constexpr int64_t kBatchMark = 0x5a5a5a71;
  static constexpr int64_t kSequenceMark = 0x4d33cc39;
  struct OpenAxis {
    Id value;
    int axis;
  };

  void CheckSize(const TensorType& type);
  void FindOpenAxes(Id id);
  Id OpenReshape(Id x, Ints extents);
  Id Scale(Id x, double factor);
  Id ReshapeAround(Id x, const Ints& extents, const std::string& what);
  Id SoftmaxRows(std::string_view op, Id x, int64_t axis);
  Id MatmulF32(Id a, Id b);  // of rank 2 or more
  void Track(const std::vector<Id>& inputs, const std::vector<Id>& outputs);
  std::vector<Mark> MarksOf(Id id) const;  // by element
  std::vector<Mark> MarksThrough(const graph::Node& node);
  std::vector<Mark> MarksOfElements(const graph::Node& node);
  // Where the graph is somebody else's: fails for a node that mixes the rows of an open batch.
  void CheckRows(const graph::Node& node);
  bool WorksAlong(const graph::Node& node, size_t input, int axis);
  bool CheckChoice(const graph::Node& node);
  void CheckIndices(Id indices, bool of_rows) const;
  void CheckPlaces(Id x, Id indices, int first) const;
  bool IsOwnRow(Id id) const;

  ImportedModel& model_;
  graph::Graph& graph_;
  const Embedding* embedding_;  // null: the graph is the model's own
  const ImportOptions& options_;
  std::map<Id, const HostTensor*> known_inputs_;
  std::map<Id, HostTensor> evaluated_;
  std::map<int64_t, OpenAxis> open_axes_;  // by kBatch, kSequence: a value that has it
  std::vector<bool> constant_;             // by value: follows from constants alone
  std::vector<bool> marked_;               // by value: depends on a mark
  std::map<Id, std::vector<Mark>> marks_;  // of small constants that are marked
  std::set<Id> row_numbers_;               // say where a row lies in its batch
  std::map<Id, std::string> mixed_;        // computed from such, and the node that did it
  std::string context_;
  int64_t constant_bytes_ = 0;
};

inline bool IsEmpty(const Shape& shape) {
  return std::find(shape.extents().begin(), shape.extents().end(), 0) != shape.extents().end();
}
inline Ints Extents(const Shape& shape) {
  return shape.extents();
}
inline bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
// What the node's op makes of these inputs.
HostTensor Compute(const graph::Node& node, std::vector<HostTensor> inputs);
Ints AllAxes(int rank);
int64_t Product(const Ints& extents);

}  // namespace lepton::onnx
