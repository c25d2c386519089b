// Communicators that are over, each ending on a thread of its own: NCCL's calls wait for the GPU
// and for the peers, and have been seen to hang. The next group is made meanwhile. Empty in a build
// without NCCL. Threads: any.
#pragma once

#ifdef LEPTON_HAS_NCCL

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>

#include "collectives/backends/nccl_library.h"
#include "runtime/base/clock.h"

namespace lepton::collectives {

// A communicator, and what its transfers use.
struct NcclBelongings {
  int device = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  char* host = nullptr;  // pinned, so that copies never block the host
  char* gpu = nullptr;
  size_t capacity = 0;
};

class NcclEndings {
 public:
  enum class How { kFlushed, kAborted };
  // This process's. Its first use is behind the loading of NCCL, so that the wait at the process's
  // end is before NCCL's own end.
  static NcclEndings& Of();

  void Begin(const NcclBelongings& old, How how);
  // Whatever else may hang, on a thread of its own.
  void Run(std::function<void()> work);
  int running() const;
  // Returns when nothing runs any more, or after `at_most`.
  void Await(Duration at_most);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;
};

}  // namespace lepton::collectives

#endif
