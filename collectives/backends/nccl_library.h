// NCCL, loaded at first use, and what every caller of it and of the CUDA run time needs. For the
// nccl back-end's sources alone: to others, and in a build without NCCL, it is empty. Threads: any.
#pragma once

#ifdef LEPTON_HAS_NCCL

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "runtime/base/status.h"

namespace lepton::collectives {

// The functions we use, from the shared library.
struct NcclApi {
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommFinalize) finalize = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) recv = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  decltype(&ncclGetVersion) version = nullptr;
  // ncclCommShrink, which headers before 2.27.3 do not declare: the ranks of a communicator but
  // those of a list make one of their own. Null: this NCCL has none.
  ncclResult_t (*shrink)(ncclComm_t, int* excluded, int count, ncclComm_t*, ncclConfig_t*,
                         int flags) = nullptr;
  Status loaded;
};

const NcclApi& Nccl();

// kDeviceFailed where it is the device's fault, else kAborted.
Status CudaStatus(cudaError_t error, const char* what);
// kInProgress is no error: a non-blocking communicator goes on in the background. The code alone
// says "invalid usage" and the like; the cause is in the text of the process's last error.
Status NcclStatus(ncclResult_t result, const char* what);

// A thread's device while it works for a mesh; then the one that it had, for its other work.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    status_ = CudaStatus(cudaGetDevice(&before_), "cudaGetDevice");
    if (status_.ok()) status_ = CudaStatus(cudaSetDevice(device), "cudaSetDevice");
    changed_ = status_.ok() && before_ != device;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const Status& status() const { return status_; }

 private:
  int before_ = 0;
  bool changed_ = false;
  Status status_;
};

}  // namespace lepton::collectives

#endif
