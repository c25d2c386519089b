// Groups nodes that run as one step: an anchor, and pointwise nodes that read its result block by
// block while it is in the cache (bias, activation, residual, cast). What nobody else reads never
// goes to memory. The bits are those of one node after the other: values are rounded where their
// types say so. Threads: pure functions.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

struct Group {
  NodeId anchor = kNoNode;
  std::vector<NodeId> followers;  // in order; pointwise, each with one output of the anchor's shape
};

// How a pointwise node reads an input: element by element, or the same row or number for all.
enum class PointwiseRead : uint8_t { kFull, kRow, kScalar, kNo };
PointwiseRead ReadOf(const TensorType& input, const Shape& shape);

struct FusionLimits {
  size_t followers = 12;
  int distance = 12;  // nodes that a follower may move forward
};

// What is grouped: a schedule, and by value its type and the value whose memory it is a view of.
struct FusionInput {
  const std::deque<Node>& nodes;
  std::span<const NodeId> order;
  std::span<const TensorType> types;
  std::span<const ValueId> roots;
};

// The groups of a schedule; `has_kernel` says whether one runs such a group. A follower moves
// forward to its anchor, so all that it reads must be there by then.
std::vector<Group> FuseGroups(const FusionInput& input,
                              const std::function<bool(const Group&)>& has_kernel,
                              const FusionLimits& limits = {});

}  // namespace lepton::graph
