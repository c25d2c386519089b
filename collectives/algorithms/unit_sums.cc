#include "collectives/algorithms/unit_sums.h"

namespace lepton::collectives {

UnitSums::UnitSums(const Group& group, const Call& call)
    : group_(group),
      call_(call),
      tree_(group.host_tree),
      host_(tree_.HostOf(group.rank)),
      element_(DataTypeSize(call.type)),
      partial_type_(PartialType(call.type, call.op)),
      partial_(DataTypeSize(partial_type_)) {}

size_t UnitSums::ScratchBytes(size_t most_added, size_t most_combined) const {
  if (!widens()) return 0;
  return ranks_here() * StrideOfUnits(most_added) + StrideOfUnits(most_combined);
}

void UnitSums::UseScratch(unsigned char* scratch, size_t most_added) {
  wide_ = scratch;
  wide_stride_ = StrideOfUnits(most_added);
  sum_ = wide_ + ranks_here() * wide_stride_;
}

const void* UnitSums::Contribution(int rank, Range part, const unsigned char* given,
                                   size_t stride) const {
  if (rank == group_.rank) return static_cast<const char*>(call_.in) + part.begin * element_;
  size_t place = 0;
  for (const int other : tree_.ranks_of[host_]) {
    if (other == rank) break;
    place += other != group_.rank;
  }
  return given + place * stride;
}

void UnitSums::Add(Range part, const unsigned char* given, size_t given_stride,
                   unsigned char* units, size_t unit_stride) {
  for (const int index : tree_.units_of[host_]) {
    const HostTree::Unit& unit = tree_.units[index];
    inputs_.clear();
    for (int rank = unit.first; rank < unit.first + unit.ranks(); ++rank) {
      const void* from = Contribution(rank, part, given, given_stride);
      if (widens()) {
        unsigned char* const wide = wide_ + inputs_.size() * wide_stride_;
        ToPartial(from, part.size(), call_.type, call_.op, wide);
        from = wide;
      }
      inputs_.push_back(from);
    }
    TreeReduce(units, inputs_.data(), unit.splits, part.size(), partial_type_, PartialOp(call_.op));
    units += unit_stride;
  }
}

void UnitSums::Combine(const unsigned char* received, size_t received_stride,
                       const unsigned char* units, size_t unit_stride, size_t elements, void* out) {
  inputs_.assign(tree_.units.size(), nullptr);
  for (int host = 0; host < tree_.hosts(); ++host) {
    if (host == host_) continue;
    for (const int unit : tree_.units_of[host]) {
      inputs_[unit] = received;
      received += received_stride;
    }
  }
  for (const int unit : tree_.units_of[host_]) {
    inputs_[unit] = units;
    units += unit_stride;
  }
  void* const sum = widens() ? static_cast<void*>(sum_) : out;
  TreeReduce(sum, inputs_.data(), tree_.splits, elements, partial_type_, PartialOp(call_.op));
  if (widens() || call_.op == ReduceOp::kMean) {
    FromPartial(sum, group_.size, elements, call_.type, call_.op, out);
  }
}

}  // namespace lepton::collectives
