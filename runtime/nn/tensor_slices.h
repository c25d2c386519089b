// Parameters of which each of several ranks has a part (docs/decisions/tensor_parallel.md): which
// elements of the undivided tensor that are, and how parts become whole again.
// Threads: pure; GatherWhole is collective over its group.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/graph/tensor_group.h"

namespace lepton::nn {

// Which of the ranks that share a model this is.
struct TensorPlace {
  int rank = 0;
  int ranks = 1;
  bool divided() const { return ranks > 1; }
};

// The undivided tensor is cut along `axis` into sections of these lengths, and each section into
// one equal part a rank: a rank has its part of every section, one behind the other. Queries, keys
// and values in one matrix are three sections.
struct TensorSlice {
  int axis = -1;  // -1: the rank has all of it
  std::vector<int64_t> sections;
  TensorPlace place;
  bool cut() const { return axis >= 0; }
};

// Of the undivided tensor, whose part has the extents `part`.
std::vector<int64_t> WholeShape(const std::vector<int64_t>& part, const TensorSlice& slice);

// The part's elements as runs of neighbours, row-major in both, in order.
using SliceRun = std::function<void(int64_t in_whole, int64_t in_part, int64_t count)>;
void ForEachRun(const std::vector<int64_t>& part, const TensorSlice& slice, const SliceRun& run);

void TakePart(const std::vector<int64_t>& shape, const TensorSlice& slice,
              std::span<const float> whole, std::span<float> part);
// What of a part lies in elements [begin, begin + values.size()) of the undivided tensor.
void TakePartOf(const std::vector<int64_t>& shape, const TensorSlice& slice, int64_t begin,
                std::span<const float> values, std::span<float> part);

// The undivided tensor, of what all ranks of the group hold, unless the group has failed.
std::vector<float> GatherWhole(graph::TensorGroup* group, const std::vector<int64_t>& shape,
                               const TensorSlice& slice, std::span<const float> part);

}  // namespace lepton::nn
