// Internal to the back-end (it shows the vendor's types). cuDNN, loaded when the first kernel asks
// for it: programs start where it is not installed, and compute without it. Threads: any.
#pragma once

#include <cudnn.h>

#include <string>

#include "runtime/base/status.h"

namespace lepton::kernels::cuda {

// The functions that we call, by their names.
struct Cudnn {
  decltype(&::cudnnCreate) Create;
  decltype(&::cudnnDestroy) Destroy;
  decltype(&::cudnnSetStream) SetStream;
  decltype(&::cudnnGetErrorString) GetErrorString;
  decltype(&::cudnnGetLastErrorString) GetLastErrorString;
  decltype(&::cudnnBackendCreateDescriptor) BackendCreateDescriptor;
  decltype(&::cudnnBackendDestroyDescriptor) BackendDestroyDescriptor;
  decltype(&::cudnnBackendSetAttribute) BackendSetAttribute;
  decltype(&::cudnnBackendGetAttribute) BackendGetAttribute;
  decltype(&::cudnnBackendFinalize) BackendFinalize;
  decltype(&::cudnnBackendExecute) BackendExecute;

  // kUnavailable says which library or function is missing. Loaded once, never unloaded.
  static Result<const Cudnn*> Load();
  // What the library says of this thread's last failure.
  std::string LastError(cudnnStatus_t status) const;
};

}  // namespace lepton::kernels::cuda
