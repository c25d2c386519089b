#include "runtime/graph/passes/fusion.h"

#include <algorithm>

namespace lepton::graph {
namespace {

constexpr int kSource = -1;  // position of inputs and parameters

class Fuser {
 public:
  Fuser(const FusionInput& input, const std::function<bool(const Group&)>& has_kernel,
        const FusionLimits& limits)
      : has_kernel_(has_kernel),
        nodes_(input.nodes),
        order_(input.order),
        types_(input.types),
        roots_(input.roots),
        limits_(limits),
        taken_(nodes_.size()),
        ready_(types_.size(), kSource) {
    for (size_t i = 0; i < order_.size(); ++i) {
      for (const ValueId output : nodes_[order_[i]].outputs) ready_[output] = static_cast<int>(i);
    }
  }

  bool taken(NodeId id) const { return taken_[id]; }

  Group Grow(int position) {
    Group group{order_[position], {}};
    const Node& anchor = nodes_[group.anchor];
    const Shape& shape = types_[anchor.outputs[0]].shape;
    std::vector<ValueId> values = {anchor.outputs[0]};
    int last = position;
    for (int i = position + 1; i < static_cast<int>(order_.size()); ++i) {
      if (i - last > limits_.distance || group.followers.size() == limits_.followers) break;
      const NodeId id = order_[i];
      if (taken_[id] || !CanFollow(nodes_[id], shape, values, position)) continue;
      group.followers.push_back(id);
      if (!has_kernel_(group)) {
        group.followers.pop_back();
        continue;
      }
      values.push_back(nodes_[id].outputs[0]);
      taken_[id] = true;
      last = i;
    }
    return group;
  }

 private:
  bool CanFollow(const Node& node, const Shape& shape, const std::vector<ValueId>& values,
                 int position) const {
    if (!node.op->pointwise() || node.outputs.size() != 1) return false;
    if (types_[node.outputs[0]].shape != shape) return false;
    bool reads_group = false;
    for (const ValueId input : node.inputs) {
      if (std::find(values.begin(), values.end(), input) != values.end()) {
        reads_group = true;
        continue;
      }
      if (ready_[roots_[input]] >= position || ReadOf(types_[input], shape) == PointwiseRead::kNo) {
        return false;
      }
    }
    return reads_group;
  }

  const std::function<bool(const Group&)>& has_kernel_;
  const std::deque<Node>& nodes_;
  const std::span<const NodeId> order_;
  const std::span<const TensorType> types_;
  const std::span<const ValueId> roots_;
  const FusionLimits limits_;
  std::vector<bool> taken_;  // by node: follows some anchor
  std::vector<int> ready_;   // by value: the position that computes it
};

}  // namespace

PointwiseRead ReadOf(const TensorType& input, const Shape& shape) {
  if (input.dtype != DType::kF32 && input.dtype != DType::kBF16) return PointwiseRead::kNo;
  if (input.shape == shape) return PointwiseRead::kFull;
  if (input.shape.elements() == 1 && input.shape.rank() <= shape.rank()) {
    return PointwiseRead::kScalar;
  }
  // The last axis, repeated along all others.
  const bool row = shape.rank() > 0 && input.shape.rank() > 0 &&
                   input.shape.rank() <= shape.rank() && input.shape.back() == shape.back() &&
                   input.shape.rows() == 1;
  return row ? PointwiseRead::kRow : PointwiseRead::kNo;
}

std::vector<Group> FuseGroups(const FusionInput& input,
                              const std::function<bool(const Group&)>& has_kernel,
                              const FusionLimits& limits) {
  Fuser fuser(input, has_kernel, limits);
  std::vector<Group> groups;
  for (int position = 0; position < static_cast<int>(input.order.size()); ++position) {
    if (!fuser.taken(input.order[position])) groups.push_back(fuser.Grow(position));
  }
  return groups;
}

}  // namespace lepton::graph
