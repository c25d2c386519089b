// oneDNN as these kernels use it: one engine, and primitives that run on the calling thread alone,
// so that its own OpenMP threads are never started.
// Threads: any; the stream and the scratchpads belong to the calling thread.
#pragma once

#include <cstddef>
#include <dnnl.hpp>

namespace lepton::kernels {

dnnl::engine& OnednnEngine();
// oneDNN decides by the OpenMP setting of the calling thread: every thread that creates or runs a
// primitive asks for its stream first.
dnnl::stream& SingleThreadedStream();
// Memory of this thread, kept and grown; its contents last until the slot is asked for again.
inline constexpr int kScratchSlots = 4;
void* Scratchpad(size_t bytes, int slot = 0);

}  // namespace lepton::kernels
