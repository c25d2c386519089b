// The optimiser over rounds of local SGD (DiLoCo: Douillard et al. 2023, algorithm 1; with plain
// averaging, lr 1 and momentum 0: Stich 2018). Its gradient is what the shards changed in a round,
// on the mean; statistics become their mean over the shards.
// Threads: one caller; updates run on ThreadPool::Compute(). The bits do not depend on the number
// of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"

namespace lepton::nn {

class OuterOptimizer {
 public:
  // For the flat buffers that `parameters` describe.
  OuterOptimizer(const spec::OuterOptimizerSpec& spec,
                 const std::vector<ParameterView>& parameters);

  // The momentum of each trained parameter, zeros at first; empty with momentum 0. To be
  // checkpointed beside the weights, and the caller's to change between two steps.
  std::span<float> state() { return momentum_; }

  // With g = changes * scale, of [trained parameters, statistics] as TrainingProgram::weights():
  //   v = momentum * v + g;  w -= lr * v  (sgd)  or  lr * (momentum * v + g)  (nesterov)
  void Step(std::span<const float> changes, double scale, std::span<float> weights);

 private:
  const spec::OuterOptimizerSpec spec_;
  int64_t trained_ = 0;
  std::vector<float> momentum_;
};

}  // namespace lepton::nn
