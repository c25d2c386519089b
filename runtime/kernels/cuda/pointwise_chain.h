// The program of a chain of pointwise nodes (device/pointwise.h): built once per step, bound to
// memory at each run. Threads: as graph::Kernel.
#pragma once

#include <span>
#include <vector>

#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/pointwise.h"

namespace lepton::kernels::cuda {

class PointwiseChain {
 public:
  // Whether all nodes are pointwise, read their inputs element by element, by row or as a scalar,
  // and fit into one program. `given`: a value that lies in memory although the step computes it.
  static bool CanRun(std::span<const graph::Node* const> nodes, graph::ValueId given,
                     std::span<const TensorType> types);

  PointwiseChain(std::span<const graph::Node* const> nodes, graph::ValueId given,
                 std::span<const TensorType> types, std::span<const bool> kept);

  void Run(const KernelContext& context, CudaDevice& device, void* given_data) const;

 private:
  bool Fits() const;
  uint8_t Load(graph::ValueId value, const Shape& shape, std::span<const TensorType> types);
  void Append(const graph::Node& node, std::span<const TensorType> types);
  int RegisterOf(graph::ValueId value) const;
  void ShareRegisters();

  struct Step {
    PointwiseStep step;
    graph::ValueId value = graph::kNoValue;  // whose memory is read or written
    int a = -1, b = -1, y = -1;
  };
  int Define(Step step);

  std::vector<Step> steps_;
  std::vector<std::pair<graph::ValueId, int>> defined_;
  graph::ValueId given_;
  int registers_ = 0;
  int64_t total_ = 0;
  int64_t width_ = 1;
};

// The code of an op; false for one that is not pointwise here.
bool FindPointwiseCode(std::string_view op, PointwiseCode* code);

}  // namespace lepton::kernels::cuda
