// A CUDA run time without a GPU, linked into a test in the real one's place (fake_cudart.cc):
// memory is the host's, copies are done at once, kernels do nothing. It holds its caller to what
// the run time's errors do: each stays the thread's last error until it is asked for, and what
// cannot be captured spoils the graph. Threads: any; each has its own current device.
#pragma once

#include <atomic>

namespace lepton::cuda_test {

struct FakeCuda {
  std::atomic<int> devices{1};
  std::atomic<int> elsewhere{0};        // calls for a stream of another device
  std::atomic<int> not_ready{0};        // so often a stream that is asked still works
  std::atomic<int> broken{0};           // the error that every stream then is in; 0: none
  std::atomic<bool> no_capture{false};  // what is queued cannot be captured
  std::atomic<bool> no_graph{false};    // captured graphs cannot be made into one that runs
  std::atomic<bool> no_memory{false};
  std::atomic<int> kernels{0};  // that were launched, by graphs too
  std::atomic<int> graphs{0};   // launches of such
};
FakeCuda& TheFakeCuda();
// Puts an error where a kernel that cannot be launched does.
void FailALaunch();
// Any other error: a cudaError_t.
void Fail(int error);

}  // namespace lepton::cuda_test
