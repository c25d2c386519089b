// The ranks over which a model's layers are divided (docs/decisions/tensor_parallel.md), as kernels
// and programs see them. All of the group's ranks make the same calls in the same order.
// Errors: the first failure sticks, is what status() says, and ends later calls at once; what they
// would have written is undefined. So a pass runs to its end without waiting, and its caller asks.
// Threads: one caller.
#pragma once

#include <cstddef>

#include "runtime/base/status.h"

namespace lepton::graph {

class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  // out[i] = the sum over ranks of in[i], in one fixed order: the same bits on all of them. `in`
  // and `out` are equal or disjoint.
  virtual void AllReduce(const float* in, float* out, size_t count) = 0;
  // `bytes` of each rank, rank by rank.
  virtual void AllGather(const void* in, void* out, size_t bytes) = 0;
  virtual Status status() const = 0;
};

}  // namespace lepton::graph
