// What the hierarchical sums share: on a host, its ranks' contributions to some elements are added
// up to a partial sum of each of its units (host_tree.h); where those of all hosts are, the rest of
// the tree is computed. Partial sums of 16-bit floats may be wider than what they are made of
// (tree_reduce.h). Holds pointers alone: memory is the caller's scratch.
// Threads: one caller. Borrows the group and the call.
#pragma once

#include <vector>

#include "collectives/algorithms/algorithm.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {

class UnitSums {
 public:
  UnitSums(const Group& group, const Call& call);

  // Bytes from one to the next of what holds `elements`, of a contribution and of a partial sum.
  size_t StrideOfGiven(size_t elements) const { return Rounded(elements * element_); }
  size_t StrideOfUnits(size_t elements) const { return Rounded(elements * partial_); }
  size_t partial_bytes() const { return partial_; }  // of one element
  size_t units_here() const { return tree_.units_of[host_].size(); }
  size_t units_elsewhere() const { return tree_.units.size() - units_here(); }
  size_t ranks_here() const { return tree_.ranks_of[host_].size(); }

  // Scratch that Add and Combine need beside their arguments, for at most so many elements.
  size_t ScratchBytes(size_t most_added, size_t most_combined) const;
  void UseScratch(unsigned char* scratch, size_t most_added);

  // Elements `part` of the call's: this rank's contribution is in the call's `in`, those of the
  // host's others in `given`, in the order of their ranks. To `units`, in the order of units_of.
  void Add(Range part, const unsigned char* given, size_t given_stride, unsigned char* units,
           size_t unit_stride);
  // The sum over all units: `received` has those of other hosts, host by host, and `units` this
  // one's. `elements` of them to `out`, in the call's type.
  void Combine(const unsigned char* received, size_t received_stride, const unsigned char* units,
               size_t unit_stride, size_t elements, void* out);

 private:
  static size_t Rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }
  const void* Contribution(int rank, Range part, const unsigned char* given, size_t stride) const;
  bool widens() const { return partial_type_ != call_.type; }

  const Group& group_;
  const Call& call_;
  const HostTree& tree_;
  const int host_;
  const size_t element_;  // bytes
  const DataType partial_type_;
  const size_t partial_;           // bytes of one
  unsigned char* wide_ = nullptr;  // contributions, widened
  size_t wide_stride_ = 0;
  unsigned char* sum_ = nullptr;  // not yet narrowed
  std::vector<const void*> inputs_;
};

}  // namespace lepton::collectives
