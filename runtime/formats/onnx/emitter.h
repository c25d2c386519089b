// What exporters are written with: nodes and constants of an ONNX graph, by name. Failures are
// thrown as ImportFailure, which Export() catches: no exception leaves this folder.
// Ownership: borrows the request and the message that it fills. Threads: one caller.
#pragma once

#include <functional>
#include <span>
#include <variant>

#include "runtime/formats/onnx/builder.h"
#include "runtime/formats/onnx/export.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {

class Emitter {
 public:
  using Name = std::string;
  using Attribute = std::variant<int64_t, double, std::string, Ints>;
  using Attributes = std::vector<std::pair<std::string, Attribute>>;

  Emitter(const ExportRequest& request, onnx_proto::GraphProto* graph, std::string* data)
      : request_(request), graph_(*graph), data_(*data) {}

  void Run();

  // -- for exporters
  const TensorType& type(graph::ValueId id) const { return request_.graph->type(id); }
  const Shape& shape(graph::ValueId id) const { return type(id).shape; }
  const Name& name(graph::ValueId id) const;  // fails for a value that nothing has given yet
  void Set(graph::ValueId id, Name name);

  // A node with one output; the output's name is made up.
  Name Node(std::string_view op, std::vector<Name> inputs, Attributes attributes = {});
  Name Integers(const Ints& numbers);  // i64 [n]
  Name Integer(int64_t number);        // i64 scalar
  Name Float(double number);           // f32 scalar
  Name Floats(const Ints& extents, const std::vector<float>& numbers);

  // -- phrases
  Name Reshape(const Name& x, const Ints& extents);
  Name Transpose(const Name& x, const Ints& order);
  Name Slice(const Name& x, int64_t axis, int64_t begin, int64_t end, int64_t step = 1);
  Name Unsqueeze(const Name& x, const Ints& axes);
  Name ExtentOf(const Name& x, int64_t axis);  // i64 scalar
  Name Range(const Name& count);               // i64 [count]: 0, 1, ...
  Name ToF32(const Name& x) { return Node("Cast", {x}, {{"to", int64_t{1}}}); }
  // What make() gives, made once for a key: tables that all layers share.
  Name Shared(const std::string& key, const std::function<Name()>& make);
  void set_context(std::string context) { context_ = std::move(context); }

 private:
  void AddInput(graph::ValueId id);
  void AddWeight(graph::ValueId id);
  void AddOutput(const ExportRequest::Output& output);
  Name Unique(std::string name);
  Name Initializer(Name name, int32_t type, const Ints& extents, std::string_view bytes);
  Name InputAs(const std::string& name, int32_t type, const Shape& shape);

  const ExportRequest& request_;
  onnx_proto::GraphProto& graph_;
  std::string& data_;
  bool external_ = false;
  std::map<graph::ValueId, Name> names_;
  std::set<Name> taken_;
  std::map<std::string, Name> shared_;
  std::string context_;
};

struct ExportRule {
  std::string_view op;
  void (*apply)(Emitter& e, const graph::Node& node);  // null: see reason
  std::string_view reason = "";
};

std::span<const ExportRule> ElementwiseExports();
std::span<const ExportRule> ShapeExports();
std::span<const ExportRule> MatrixExports();
std::span<const ExportRule> ImageExports();
std::span<const ExportRule> TransformerExports();
std::span<const ExportRule> UnexportedOps();

const ExportRule* FindExport(std::string_view op);

}  // namespace lepton::onnx
