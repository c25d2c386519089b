// cuDNN: convolutions and attention. Threads: one caller.
#pragma once

#include <memory>
#include <string>

#include "runtime/base/status.h"
#include "runtime/kernels/cuda/attentions.h"
#include "runtime/kernels/cuda/convolutions.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

class CudnnBackend {
 public:
  virtual ~CudnnBackend() = default;
  virtual Convolutions& convolutions() = 0;
  virtual Attentions& attentions() = 0;
};

// Whether LEPTON_CUDNN, on or off, asks for it: on without it, kInvalidArgument if it is neither.
Result<bool> WantsCudnn();

// What it makes runs on the stream, which must outlive it, and so must `failed`, which becomes the
// error of the first piece of work that the library refuses to run. kUnavailable without cuDNN, in
// the build or where it runs; kInternal with what it says.
Result<std::unique_ptr<CudnnBackend>> OpenCudnn(Stream stream, Status& failed);

// Make plans for a device that is not there, described as cuDNN describes devices (9.8 and later),
// to find out whether the library has any: its workspace in bytes. kNotFound says why it has none,
// kFailedPrecondition that it has one whose code this machine cannot load for want of a driver.
Result<size_t> PlanWithoutDevice(const ConvolutionShape& shape, const std::string& device_json);
Result<size_t> PlanWithoutDevice(const AttentionArguments& arguments, AttentionPass pass,
                                 const std::string& device_json);

}  // namespace lepton::kernels::cuda
