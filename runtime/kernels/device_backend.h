// An accelerator that trains: its kernels, and the updates of weights that run outside of graphs.
// runtime/nn sees devices through this alone. Threads: as Accelerator.
#pragma once

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cpu/optimizer_kernels.h"
#include "runtime/tensor/accelerator.h"

namespace lepton::kernels {

class DeviceBackend : public Accelerator {
 public:
  virtual const graph::KernelTable& kernels() const = 0;

  // Queued; what they compute is what the host's do (cpu/optimizer_kernels.h), all memory is the
  // device's.
  virtual void ApplySgd(const SgdUpdate& update, int64_t count, float* weights,
                        const float* gradients, float* velocity) = 0;
  virtual void ApplyAdam(const AdamUpdate& update, int64_t count, float* weights,
                         const float* gradients, float* first, float* second) = 0;
  // values *= factor.
  virtual void Scale(int64_t count, float factor, float* values) = 0;
  // values += momentum * (scale * measured - values).
  virtual void MoveTowards(int64_t count, float momentum, float scale, const float* measured,
                           float* values) = 0;
  // In double, summed in an order that depends on the count alone. Waits for it.
  virtual Result<double> SumOfSquares(int64_t count, const float* values) = 0;
};

}  // namespace lepton::kernels
