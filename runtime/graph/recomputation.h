// Values that a backward pass computes a second time, so that a plan need not keep them from the
// forward pass on. Bits stay: random numbers follow from counters, and no kernel's sums depend on
// where it runs. Threads: the graph's builder.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

// The nodes of blocks, done once more where the backward pass enters the block, but for those of
// the last one and those that follow from parameters alone (Chen et al. 2016, "Training deep nets
// with sublinear memory cost").
class BlockRecomputation {
 public:
  // Of nodes up to `last`.
  BlockRecomputation(Graph& graph, NodeId last);

  // The node itself, or the one that does the same again for its gradient.
  Node NodeFor(NodeId id);

 private:
  void Enter(int32_t block);

  Graph& graph_;
  std::vector<std::vector<NodeId>> blocks_;
  int32_t entered_ = 0;
  std::unordered_map<NodeId, NodeId> again_;  // of the block entered
};

// What ops call cheap (Op::cheap_again), each value made again where a gradient reads it first,
// from values that gradients read anyway: a normalised and activated result from what was
// normalised. Chains of up to kMostNodes nodes; where one would be longer its value is kept, and
// the next begins there.
class CheapRecomputation {
 public:
  static constexpr int kMostNodes = 6;

  // `read`: by value, whether the gradients of the nodes up to `last` read it (ReadByGradients).
  CheapRecomputation(Graph& graph, NodeId last, const std::vector<bool>& read);

  // The node as its gradient is to see it: with values that are made again in the place of others.
  Result<Node> NodeFor(NodeId id);
  bool is_cheap(ValueId value) const { return nodes_of_[value] > 0; }

 private:
  Result<ValueId> Again(ValueId value);

  Graph& graph_;
  std::vector<int> nodes_of_;  // by value: that make it again; 0: it is kept
  std::vector<ValueId> made_;  // by value: made again; kNoValue: not yet
};

// By value, whether nodes behind `last` that `results` follow from read it.
std::vector<bool> ReadByGradients(const Graph& graph, NodeId last,
                                  std::span<const ValueId> results);

}  // namespace lepton::graph
