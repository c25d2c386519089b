// A static computation: values with types, and nodes that apply an op to values. Nodes are appended
// in an order in which every input exists already, so the node list is always a valid schedule.
// Types are inferred and checked as nodes are added; extents may stay open (Shape::kBatch) until
// the graph is planned for a batch. Ownership: owns its nodes; the OpSet must outlive it.
// References to values and nodes hold as long as the graph, whatever is added. Threads: one
// builder; immutable afterwards.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "runtime/graph/op.h"

namespace lepton::graph {

inline constexpr NodeId kNoNode = -1;

enum class ValueKind : uint8_t {
  kInput,      // fed at each run
  kParameter,  // bound once; its memory lives across runs
  kComputed,   // a node's output
};

struct Value {
  std::string name;
  TensorType type;
  ValueKind kind = ValueKind::kComputed;
  NodeId producer = kNoNode;
};

struct Node {
  const Op* op = nullptr;
  std::string name;  // for messages: "layers.0/matmul"
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attributes attributes;
  int32_t block = 0;  // Graph::BeginBlock; 0: none
  bool recomputed =
      false;  // does again what another node did (autodiff.h): not to be merged with it
};

// A value that the caller wants. An external one is written straight into memory that the caller
// binds; a passing one is read from the plan's own memory in Plan::OutputReady and not later; the
// others are read from there after a run.
struct Output {
  ValueId value = kNoValue;
  bool external = false;
  bool passing = false;
};

class Graph {
 public:
  explicit Graph(const OpSet& ops) : ops_(&ops) {}

  ValueId AddInput(std::string name, TensorType type);
  ValueId AddParameter(std::string name, TensorType type);
  // kInvalidArgument: unknown op, or what the op says about its inputs, with the node's name.
  Result<std::vector<ValueId>> AddNode(std::string_view op, std::vector<ValueId> inputs,
                                       Attributes attributes = {}, std::string name = "");
  // The same for the first output.
  Result<ValueId> Add(std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {},
                      std::string name = "");
  // Nodes added from here on belong to one more block (a layer), until EndBlock.
  void BeginBlock() { block_ = ++blocks_; }
  void EndBlock() { block_ = 0; }
  // A node that does the same once more, in no block: its outputs are new values.
  NodeId Repeat(NodeId node, std::vector<ValueId> inputs);
  // Another op in a node's place, with the same inputs. kInvalidArgument: an op that there is not,
  // or that does not take them or gives something else; the node is then as before.
  Status ReplaceOp(NodeId node, std::string_view op, Attributes attributes);
  // kInvalidArgument when an input or parameter is asked for as an external output.
  Status AddOutput(ValueId value, bool external);
  // As an external one it must be computed by a node.
  Status AddPassingOutput(ValueId value);

  const std::deque<Value>& values() const { return values_; }
  const std::deque<Node>& nodes() const { return nodes_; }
  const std::vector<Output>& outputs() const { return outputs_; }
  const Value& value(ValueId id) const { return values_[id]; }
  const TensorType& type(ValueId id) const { return values_[id].type; }
  // kNoValue when there is no such input or parameter.
  ValueId FindSource(std::string_view name) const;
  // One line per node: "%5 f32[batch, 64] = matmul(%0, %1)  layers.0/matmul".
  std::string ToString() const;

 private:
  const OpSet* ops_;
  std::deque<Value> values_;
  std::deque<Node> nodes_;
  std::vector<Output> outputs_;
  int32_t block_ = 0, blocks_ = 0;
};

}  // namespace lepton::graph
