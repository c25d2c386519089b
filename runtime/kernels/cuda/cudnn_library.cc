#include "runtime/kernels/cuda/cudnn_library.cuh"

#include "runtime/kernels/cuda/library_loader.h"

namespace lepton::kernels::cuda {
namespace {

constexpr char kLibrary[] = "libcudnn.so.9";

Status MissingFrom(const std::string& what) {
  return Unavailable(what + ": install cuDNN 9, or put its folder into LD_LIBRARY_PATH");
}

Result<const Cudnn*> LoadOnce() {
  void* const library = OpenLibrary(kLibrary, LEPTON_CUDA_LIBRARIES);
  if (library == nullptr) return MissingFrom(::dlerror());
  static Cudnn functions;
  LibraryLoader loader(library);
  loader.Find("cudnnCreate", functions.Create);
  loader.Find("cudnnDestroy", functions.Destroy);
  loader.Find("cudnnSetStream", functions.SetStream);
  loader.Find("cudnnGetErrorString", functions.GetErrorString);
  loader.Find("cudnnGetLastErrorString", functions.GetLastErrorString);
  loader.Find("cudnnBackendCreateDescriptor", functions.BackendCreateDescriptor);
  loader.Find("cudnnBackendDestroyDescriptor", functions.BackendDestroyDescriptor);
  loader.Find("cudnnBackendSetAttribute", functions.BackendSetAttribute);
  loader.Find("cudnnBackendGetAttribute", functions.BackendGetAttribute);
  loader.Find("cudnnBackendFinalize", functions.BackendFinalize);
  loader.Find("cudnnBackendExecute", functions.BackendExecute);
  if (!loader.missing().empty()) {
    return MissingFrom(std::string(kLibrary) + " has no " + loader.missing());
  }
  return &functions;
}

}  // namespace

Result<const Cudnn*> Cudnn::Load() {
  static const Result<const Cudnn*> loaded = LoadOnce();
  return loaded;
}

std::string Cudnn::LastError(cudnnStatus_t status) const {
  char message[512] = "";
  GetLastErrorString(message, sizeof(message));
  return std::string(GetErrorString(status)) + (message[0] == 0 ? "" : ": ") + message;
}

}  // namespace lepton::kernels::cuda
