#include "runtime/kernels/cpu/onednn_engine.h"

#include <omp.h>

#include "runtime/kernels/cpu/cpu_isa.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels {

dnnl::engine& OnednnEngine() {
  static auto* engine = [] {
    // Before all else, or it does not count.
    if (AllowedCpuIsa() == CpuIsa::kAvx2) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
    if (AllowedCpuIsa() == CpuIsa::kBaseline) dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41);
    return new dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return *engine;
}

dnnl::stream& SingleThreadedStream() {
  thread_local dnnl::stream stream = [] {
    omp_set_num_threads(1);
    return dnnl::stream(OnednnEngine());
  }();
  return stream;
}

void* Scratchpad(size_t bytes, int slot) {
  thread_local Buffer buffers[kScratchSlots];
  if (buffers[slot].size() < bytes) buffers[slot] = Buffer(bytes);
  return buffers[slot].data();
}

}  // namespace lepton::kernels
