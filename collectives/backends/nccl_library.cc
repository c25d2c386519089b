#include "collectives/backends/nccl_library.h"

#ifdef LEPTON_HAS_NCCL

#include <dlfcn.h>

#include <string>
#include <type_traits>

namespace lepton::collectives {
namespace {

NcclApi LoadNccl() {
  NcclApi api;
  void* library = nullptr;
  for (const char* name : {"libnccl.so.2", LEPTON_NCCL_LIBRARY}) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
  }
  if (library == nullptr) {
    api.loaded = FailedPrecondition(std::string("cannot load libnccl.so.2: ") + dlerror());
    return api;
  }
  auto find = [&](const char* symbol, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, symbol));
    if (*function == nullptr) {
      api.loaded = FailedPrecondition(std::string("libnccl.so.2 is too old: it has no ") + symbol);
    }
  };
  find("ncclGetUniqueId", &api.get_unique_id);
  find("ncclCommInitRankConfig", &api.init);
  find("ncclCommGetAsyncError", &api.async_error);
  find("ncclCommAbort", &api.abort);
  find("ncclCommDestroy", &api.destroy);
  find("ncclCommFinalize", &api.finalize);
  find("ncclSend", &api.send);
  find("ncclRecv", &api.recv);
  find("ncclGroupStart", &api.group_start);
  find("ncclGroupEnd", &api.group_end);
  find("ncclGetErrorString", &api.error_string);
  find("ncclGetLastError", &api.last_error);
  find("ncclGetVersion", &api.version);
  api.shrink = reinterpret_cast<decltype(api.shrink)>(dlsym(library, "ncclCommShrink"));
  return api;
}

// As in runtime/kernels/cuda/cuda_device.cc: it will be no better for the next group.
bool IsTheDevices(cudaError_t error) {
  switch (error) {
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoDevice:
    case cudaErrorDeviceNotLicensed:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchTimeout:
    case cudaErrorContained:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

const NcclApi& Nccl() {
  static const NcclApi* api = new NcclApi(LoadNccl());
  return *api;
}

Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const std::string message = std::string(what) + ": " + cudaGetErrorString(error);
  return IsTheDevices(error) ? DeviceFailed(message) : Aborted(message);
}

Status NcclStatus(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return {};
  std::string message = std::string(what) + ": " + Nccl().error_string(result);
  const char* const cause = Nccl().last_error(nullptr);
  if (cause != nullptr && *cause != '\0') message += std::string(": ") + cause;
  return Aborted(message);
}

}  // namespace lepton::collectives

#endif
