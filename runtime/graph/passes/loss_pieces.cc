#include "runtime/graph/passes/loss_pieces.h"

#include <algorithm>
#include <vector>

#include "runtime/graph/passes/live_nodes.h"

namespace lepton::graph {
namespace {

// The nodes of one loss, by number; kNoNode where there is no gradient.
struct Loss {
  NodeId product = kNoNode, loss = kNoNode;
  NodeId slopes = kNoNode;  // cross_entropy_grad
  NodeId of_hidden = kNoNode, of_weight = kNoNode;
};

class Finder {
 public:
  Finder(const Graph& graph, const std::deque<Node>& nodes)
      : graph_(graph), nodes_(nodes), live_(nodes.size()), output_(graph.values().size()) {
    const Schedule schedule = ScheduleLiveNodes(graph, nodes);
    for (const auto* part : {&schedule.prologue, &schedule.body}) {
      for (const NodeId id : *part) live_[id] = true;
    }
    for (const Output& output : graph.outputs()) output_[output.value] = true;
  }

  // What begins with this cross_entropy, if it is as it must be.
  std::optional<Loss> Find(NodeId id) const {
    Loss found{.product = graph_.value(nodes_[id].inputs[0]).producer, .loss = id};
    if (found.product == kNoNode || !Is(found.product, "matmul")) return std::nullopt;
    const Node& product = nodes_[found.product];
    const bool plain = product.attributes.Int("transpose_a") == 0 &&
                       graph_.type(product.inputs[1]).shape.rank() == 2;
    if (!plain || output_[product.outputs[0]]) return std::nullopt;
    for (const NodeId reader : Readers(product.outputs[0])) {
      if (reader == id || !live_[reader]) continue;
      if (found.slopes != kNoNode || !Is(reader, "cross_entropy_grad") ||
          nodes_[reader].inputs[1] != nodes_[id].inputs[1]) {
        return std::nullopt;
      }
      found.slopes = reader;
    }
    if (found.slopes != kNoNode && !FindGradients(found)) return std::nullopt;
    return found;
  }

 private:
  bool Is(NodeId id, std::string_view op) const { return nodes_[id].op->name() == op; }

  std::vector<NodeId> Readers(ValueId value) const {
    std::vector<NodeId> readers;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const std::vector<ValueId>& inputs = nodes_[i].inputs;
      if (std::find(inputs.begin(), inputs.end(), value) == inputs.end()) continue;
      readers.push_back(static_cast<NodeId>(i));
    }
    return readers;
  }

  // The two products that read the logits' gradient, or what it was rounded to, and nobody else.
  bool FindGradients(Loss& found) const {
    const Node& product = nodes_[found.product];
    ValueId slopes = nodes_[found.slopes].outputs[0];
    if (output_[slopes]) return false;
    if (graph_.type(product.inputs[0]).dtype == DType::kBF16) {
      const std::vector<NodeId> readers = Readers(slopes);
      if (readers.size() != 1 || !Is(readers[0], "cast")) return false;
      slopes = nodes_[readers[0]].outputs[0];
      if (output_[slopes]) return false;
    }
    for (const NodeId reader : Readers(slopes)) {
      if (!Is(reader, "matmul")) return false;
      const std::vector<ValueId>& inputs = nodes_[reader].inputs;
      const bool of_hidden = inputs[0] == slopes && inputs[1] == product.inputs[1];
      NodeId& place = of_hidden ? found.of_hidden : found.of_weight;
      if (place != kNoNode) return false;
      place = reader;
    }
    return found.of_hidden != kNoNode && found.of_weight != kNoNode && live_[found.of_hidden] &&
           live_[found.of_weight];
  }

  const Graph& graph_;
  const std::deque<Node>& nodes_;
  std::vector<bool> live_, output_;
};

// What was rounded for the product, which rounds it by itself.
ValueId Unrounded(const Graph& graph, const std::deque<Node>& nodes, ValueId weight) {
  const NodeId producer = graph.value(weight).producer;
  if (producer == kNoNode || nodes[producer].op->name() != "cast") return weight;
  const ValueId wide = nodes[producer].inputs[0];
  return graph.type(wide).dtype == DType::kF32 ? wide : weight;
}

class Mover {
 public:
  explicit Mover(LossPieces& pieces) : graph_(pieces.graph), nodes_(pieces.nodes) {}

  // False where an op is unknown, or an input is not there in time: what was added is then dead.
  bool Replace(const Loss& loss) {
    const Node product = nodes_[loss.product], labelled = nodes_[loss.loss];
    const ValueId weight = Unrounded(graph_, nodes_, product.inputs[1]);
    Attributes attributes;
    if (product.attributes.Int("transpose_b") != 0) attributes.Set("transpose_b", int64_t{1});
    const NodeId forward =
        Add("linear_cross_entropy", {product.inputs[0], weight, labelled.inputs[1]}, attributes,
            labelled.name);
    if (forward == kNoNode) return false;
    const Node added = nodes_[forward];
    if (loss.slopes != kNoNode && !ReplaceGradients(loss, added, attributes)) return false;
    Move(forward, loss.loss, labelled.outputs);
    return true;
  }

 private:
  NodeId Add(std::string_view op, std::vector<ValueId> inputs, Attributes attributes,
             const std::string& name) {
    if (!graph_.AddNode(op, std::move(inputs), std::move(attributes), name).ok()) return kNoNode;
    nodes_.push_back(graph_.nodes().back());
    return static_cast<NodeId>(nodes_.size()) - 1;
  }

  // Puts an added node in an earlier one's place, where its first outputs are `outputs`; where it
  // was, its own first outputs remain, which nobody reads.
  void Move(NodeId from, NodeId to, const std::vector<ValueId>& outputs) {
    Node moved = nodes_[from];
    std::copy(outputs.begin(), outputs.end(), moved.outputs.begin());
    nodes_[from].outputs.resize(outputs.size());
    nodes_[to] = std::move(moved);
  }

  bool ReplaceGradients(const Loss& loss, const Node& forward, const Attributes& attributes) {
    const Node of_hidden = nodes_[loss.of_hidden], of_weight = nodes_[loss.of_weight];
    // The hidden states may have been made again for the backward pass.
    const std::vector<ValueId>& factors = of_weight.inputs;
    const ValueId hidden = factors[0] == of_hidden.inputs[0] ? factors[1] : factors[0];
    const NodeId place = std::min(loss.of_hidden, loss.of_weight);
    if (graph_.value(hidden).producer >= place) return false;
    const NodeId backward = Add("linear_cross_entropy_grad",
                                {hidden, forward.inputs[1], forward.inputs[2], forward.outputs[1],
                                 forward.outputs[2], nodes_[loss.slopes].inputs[2]},
                                attributes, of_weight.name);
    if (backward == kNoNode) return false;
    // Nobody reads what the two products give now.
    nodes_[loss.of_hidden].outputs = {nodes_[backward].outputs[0]};
    nodes_[loss.of_weight].outputs = {nodes_[backward].outputs[1]};
    Move(backward, place, {of_hidden.outputs[0], of_weight.outputs[0]});
    return true;
  }

  Graph& graph_;
  std::deque<Node>& nodes_;
};

}  // namespace

std::optional<LossPieces> FindLossPieces(const Graph& graph, const std::deque<Node>& nodes,
                                         std::span<const TensorType> types) {
  std::vector<Loss> losses;
  std::optional<Finder> finder;
  for (NodeId id = 0; id < static_cast<NodeId>(nodes.size()); ++id) {
    const Node& node = nodes[id];
    if (node.op->name() != "cross_entropy") continue;
    const TensorType& logits = types[node.inputs[0]];
    if (static_cast<int64_t>(logits.bytes()) <= kMostLogitsBytes) continue;
    if (!finder) finder.emplace(graph, nodes);
    if (const auto found = finder->Find(id)) losses.push_back(*found);
  }
  if (losses.empty()) return std::nullopt;
  LossPieces pieces{graph, nodes};
  bool changed = false;
  for (const Loss& loss : losses) changed = Mover(pieces).Replace(loss) || changed;
  if (!changed) return std::nullopt;
  return pieces;
}

}  // namespace lepton::graph
