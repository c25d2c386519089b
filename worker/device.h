// The device that a task computes on, from its spec (`resources.device`).
// Threads: one caller.
#pragma once

#include <memory>
#include <string>

#include "runtime/base/status.h"
#include "runtime/kernels/device_backend.h"

namespace lepton::worker {

// The GPU of a task, as CUDA counts those that the process sees: its agent lets it see one
// (gpu_shares.h).
inline constexpr int kTasksGpu = 0;

// Null for "cpu"; for "cuda" kTasksGpu. kDeviceFailed: it is not there any more, or broken;
// kUnavailable: it is of a kind that cannot be used.
Result<std::unique_ptr<kernels::DeviceBackend>> OpenDevice(const std::string& device);

// kUnavailable says why this host has no such device.
Status CheckDevice(const std::string& device);

// GPUs that jobs can use here; 0 where there is none, or the build has no CUDA.
int CountGpus();

}  // namespace lepton::worker
