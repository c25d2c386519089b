// Internal to the back-end (it shows the vendor's types). Convolutions by cuDNN. Threads: one
// caller.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "runtime/kernels/cuda/convolutions.h"
#include "runtime/kernels/cuda/cudnn_plan.cuh"

namespace lepton::kernels::cuda {

// Once for memory that is aligned, once for memory anywhere.
struct CudnnPlans {
  std::unique_ptr<CudnnPlan> aligned, anywhere;
  size_t workspace_bytes() const {
    return std::max(aligned->workspace_bytes(), anywhere->workspace_bytes());
  }
};

// Null plans and why, or both.
CudnnPlans PlanConvolution(const CudnnTarget& target, const ConvolutionShape& shape,
                           Status& failure);

class CudnnConvolutions final : public Convolutions {
 public:
  // The target and `failed` must outlive what it makes.
  CudnnConvolutions(const CudnnTarget& target, Status& failed) : target_(target), failed_(failed) {}
  std::unique_ptr<Convolution> Make(const ConvolutionShape& shape) override;

 private:
  using Key = std::tuple<int, int64_t, int64_t, int64_t, int64_t, bool, bool, std::vector<int64_t>,
                         std::vector<int64_t>>;
  const CudnnTarget target_;
  Status& failed_;
  // A shape is asked for several times; null plans: there are none.
  std::map<Key, std::shared_ptr<const CudnnPlans>> plans_;
};

}  // namespace lepton::kernels::cuda
