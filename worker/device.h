// The device that a task computes on, from its spec (`resources.device`) and its place on the host.
// Threads: one caller.
#pragma once

#include <memory>
#include <string>

#include "runtime/base/status.h"
#include "runtime/kernels/device_backend.h"

namespace lepton::worker {

// Null for "cpu". For "cuda" the GPU that is this process's turn: ranks of a gang on one host take
// its GPUs one after the other. kUnavailable says why there is none.
Result<std::unique_ptr<kernels::DeviceBackend>> OpenDevice(const std::string& device, int rank);

// kUnavailable says why this host has no such device.
Status CheckDevice(const std::string& device);

// GPUs that jobs can use here; 0 where there is none, or the build has no CUDA.
int CountGpus();

}  // namespace lepton::worker
