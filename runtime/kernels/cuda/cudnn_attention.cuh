// Internal to the back-end (it shows the vendor's types). Attention by cuDNN. Threads: one caller.
#pragma once

#include <array>
#include <map>
#include <memory>

#include "runtime/kernels/cuda/attentions.h"
#include "runtime/kernels/cuda/cudnn_plan.cuh"

namespace lepton::kernels::cuda {

// Null and why.
std::unique_ptr<CudnnPlan> PlanAttention(const CudnnTarget& target, const AttentionArguments& a,
                                         AttentionPass pass, Status& failure);

class CudnnAttentions final : public Attentions {
 public:
  // The target and `failed` must outlive what it makes.
  CudnnAttentions(const CudnnTarget& target, Status& failed) : target_(target), failed_(failed) {}
  std::unique_ptr<LibraryAttention> Make(const AttentionArguments& arguments,
                                         AttentionPass pass) override;

 private:
  using Key = std::array<int64_t, 11>;
  const CudnnTarget target_;
  Status& failed_;
  // All layers of a model ask for the same; null: there is none.
  std::map<Key, std::shared_ptr<const CudnnPlan>> plans_;
};

}  // namespace lepton::kernels::cuda
