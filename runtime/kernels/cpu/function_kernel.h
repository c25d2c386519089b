// A kernel without state: a function of the context.
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

using graph::KernelContext;
using graph::KernelRequest;

template <void (*function)(const KernelContext&)>
class FunctionKernel final : public graph::Kernel {
 public:
  void Run(const KernelContext& context) override { function(context); }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest&) {
    return std::make_unique<FunctionKernel>();
  }
};

inline bool Always(const KernelRequest&) {
  return true;
}

}  // namespace lepton::kernels
