// A build without cuDNN.
#include "runtime/kernels/cuda/cudnn_backend.h"

namespace lepton::kernels::cuda {

Result<std::unique_ptr<CudnnBackend>> OpenCudnn(Stream, Status&) {
  return Unavailable("this build has no cuDNN: install its headers and build again");
}

}  // namespace lepton::kernels::cuda
