// A build without cuDNN.
#include "runtime/kernels/cuda/cudnn_convolutions.h"

namespace lepton::kernels::cuda {
namespace {

Status NoCudnn() {
  return Unavailable("this build has no cuDNN: install its headers and build again");
}

}  // namespace

Result<std::unique_ptr<Convolutions>> MakeCudnnConvolutions(Stream, Status&) {
  return NoCudnn();
}

Result<size_t> PlanWithoutDevice(const ConvolutionShape&, const std::string&) {
  return NoCudnn();
}

}  // namespace lepton::kernels::cuda
