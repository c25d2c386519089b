// Pointwise nodes that follow a convolution, on pieces of its output's planes while they are in the
// L1 cache. The bits are those of one node after the other. Threads: Run and Fetch from any.
#pragma once

#include <algorithm>

#include "runtime/graph/passes/fusion.h"
#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/kernels/cpu/pointwise/scratch.h"

namespace lepton::kernels::conv {

class PlaneProgram {
 public:
  static constexpr int64_t kPlanes = 32;  // at most, at a time
  static constexpr int64_t kPixels = pointwise::kBlockElements / kPlanes;

  // What reads values that are repeated along lines, or draws numbers in fours, does not go by
  // pieces of planes.
  static bool CanRun(const graph::KernelRequest& request) {
    const auto fits = [&](const graph::Node* node) {
      const Shape& shape = request.types[node->outputs[0]].shape;
      return node->op->name() != "dropout" &&
             std::none_of(node->inputs.begin(), node->inputs.end(), [&](graph::ValueId input) {
               return graph::ReadOf(request.types[input], shape) == graph::PointwiseRead::kRow;
             });
    };
    return !request.followers.empty() &&
           pointwise::Program::CanRun(request.followers, request.types) &&
           std::all_of(request.followers.begin(), request.followers.end(), fits);
  }
  explicit PlaneProgram(const graph::KernelRequest& request)
      : program_(request.followers, request.node->outputs[0], request.types, request.kept),
        plane_(request.outputs[0].shape[2] * request.outputs[0].shape[3]) {}

  // `pixels` [planes][count]: pixels [first, first + count) of up to kPlanes planes, which are
  // counted over all images; count <= kPixels.
  void Run(const graph::KernelContext& context, int64_t plane, int64_t planes, int64_t first,
           int64_t count, float* pixels) const {
    program_.Run(context, {plane, planes, first, count, plane_, count},
                 pointwise::ThreadRegisters(program_.registers()), pixels);
  }
  // What Run will read and write there; `count` may be larger.
  void Fetch(const graph::KernelContext& context, int64_t plane, int64_t planes, int64_t first,
             int64_t count) const {
    program_.Prefetch(context, {plane, planes, first, count, plane_, count});
  }

 private:
  const pointwise::Program program_;
  const int64_t plane_;
};

}  // namespace lepton::kernels::conv
