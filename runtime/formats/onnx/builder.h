// What rules are written with: emits nodes into the graph and evaluates constants. Every call that
// fails throws ImportFailure, which Import() catches: rules are expressions, and an error anywhere
// in one ends the node. No exception leaves this folder.
// Ownership: the builder borrows the model that it fills. Threads: one caller.
#pragma once

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

class Builder {
 public:
  Builder(ImportedModel* model, const NamedValues* given, const ImportOptions* options)
      : model_(*model), given_(*given), options_(*options) {}

  // -- the graph
  std::vector<Id> Nodes(std::string_view op, std::vector<Id> inputs,
                        graph::Attributes attributes = {});
  Id Node(std::string_view op, std::vector<Id> inputs, graph::Attributes attributes = {});
  Id Constant(HostTensor tensor);
  Id Input(const std::string& name, const TensorType& type, const HostTensor* known);
  const TensorType& type(Id id) const { return model_.graph->type(id); }
  const Shape& shape(Id id) const { return type(id).shape; }
  DType dtype(Id id) const { return type(id).dtype; }
  int rank(Id id) const { return shape(id).rank(); }
  // The value, if it follows from constants and given inputs; else fails, saying that `what` must.
  HostTensor Evaluate(Id id, std::string_view what);
  void set_context(std::string name) { context_ = std::move(name); }
  const ImportOptions& options() const { return options_; }

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
  Id Squeeze(Id x, const Ints& axes);
  Id Unsqueeze(Id x, Ints axes);
  int Axis(int64_t axis, int rank);  // resolved; fails when outside

  // -- along axes
  Id Reduce(std::string_view function, Id x, const Ints& axes, bool keep = true);
  Id Matmul(Id a, Id b);  // of rank 2 or more, or 1
  Id Softmax(Id x, int64_t axis);
  Id LogSoftmax(Id x, int64_t axis);

 private:
  void CheckSize(const TensorType& type);

  ImportedModel& model_;
  const NamedValues& given_;
  const ImportOptions& options_;
  std::map<Id, const HostTensor*> known_inputs_;
  std::map<Id, HostTensor> evaluated_;
  std::string context_;
  int64_t constant_bytes_ = 0;
};

inline Ints Extents(const Shape& shape) {
  return shape.extents();
}
Ints AllAxes(int rank);
int64_t Product(const Ints& extents);

}  // namespace lepton::onnx
