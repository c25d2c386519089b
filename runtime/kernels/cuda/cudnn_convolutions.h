// Convolutions by cuDNN. Threads: one caller.
#pragma once

#include <memory>

#include "runtime/base/status.h"
#include "runtime/kernels/cuda/convolutions.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// They run on the stream, which must outlive them, and so must `failed`, which becomes the error of
// the first convolution that the library refuses to run. kUnavailable without cuDNN, in the build
// or where it runs; kInternal with what it says.
Result<std::unique_ptr<Convolutions>> MakeCudnnConvolutions(Stream stream, Status& failed);

// Makes a plan for a device that is not there, described as cuDNN describes devices (9.8 and
// later), to find out whether the library has one: its workspace in bytes. kNotFound says why it
// has none.
Result<size_t> PlanWithoutDevice(const ConvolutionShape& shape, const std::string& device_json);

}  // namespace lepton::kernels::cuda
