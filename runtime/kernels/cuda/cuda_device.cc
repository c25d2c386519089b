// The GPU itself: memory, copies and the queue.
#include "runtime/kernels/cuda/cuda_device.h"

#include <cuda_runtime.h>

#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/cublaslt_products.h"
#include "runtime/kernels/cuda/cudnn_backend.h"

namespace lepton::kernels::cuda {
namespace {

// The GPU or its driver, rather than what it was told to do. An address that a kernel must not
// touch is no such error: it would be the same on any GPU.
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

Status FromCuda(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return Status::Ok();
  const std::string message = what + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) return ResourceExhausted(message);
  if (IsTheDevices(error)) return DeviceFailed(message);
  return Internal("CUDA error: " + message);
}

class CudaFence final : public Fence {
 public:
  CudaFence(cudaStream_t stream, Status& error) : stream_(stream), error_(error) {
    Note(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event");
  }
  ~CudaFence() override {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  void Record() override { Note(cudaEventRecord(event_, stream_), "record of an event"); }
  void Wait() override { Note(cudaEventSynchronize(event_), "waiting for the device"); }

 private:
  void Note(cudaError_t error, const char* what) {
    if (error != cudaSuccess && error_.ok()) error_ = FromCuda(error, what);
  }

  cudaStream_t stream_;
  Status& error_;
  cudaEvent_t event_ = nullptr;
};

class CudaGraph final : public RecordedWork {
 public:
  CudaGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  void Replay() override { cudaGraphLaunch(graph_, stream_); }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

class RealDevice final : public CudaDevice {
 public:
  static Result<std::unique_ptr<CudaDevice>> Open(int index);
  ~RealDevice() override;

  Device device() const override { return {DeviceKind::kCuda, index_}; }
  std::string description() const override {
    return std::string(properties_.name) + ", " + std::to_string(properties_.totalGlobalMem >> 30) +
           " GiB";
  }
  Result<void*> Allocate(size_t bytes) override;
  void Free(void* data) override { Note(cudaFreeAsync(data, stream_), "free"); }
  Result<void*> AllocatePinned(size_t bytes) override;
  void FreePinned(void* data) override { Note(cudaFreeHost(data), "free of pinned memory"); }
  void CopyIn(void* to, const void* from_host, size_t bytes) override {
    Note(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_), "copy in");
  }
  void CopyOut(void* to_host, const void* from, size_t bytes) override {
    Note(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy out");
  }
  void CopyWithin(void* to, const void* from, size_t bytes) override {
    Note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copy");
  }
  void Zero(void* data, size_t bytes) override {
    Note(cudaMemsetAsync(data, 0, bytes, stream_), "zero");
  }
  Status Synchronize() override;
  std::unique_ptr<Fence> MakeFence() override {
    return std::make_unique<CudaFence>(stream_, error_);
  }
  Status BeginRecording() override;
  Result<std::unique_ptr<RecordedWork>> EndRecording() override;

  Stream stream() const override { return {stream_}; }
  Products& products() override { return *products_; }
  Convolutions* convolutions() override {
    return cudnn() == nullptr ? nullptr : &cudnn()->convolutions();
  }
  Attentions* attentions() override {
    return cudnn() == nullptr ? nullptr : &cudnn()->attentions();
  }
  int multiprocessors() const override { return properties_.multiProcessorCount; }

 private:
  explicit RealDevice(int index) : index_(index) {}
  CudnnBackend* cudnn();
  Status Start();
  // The first error counts: those after it follow from it.
  void Note(cudaError_t error, const char* what) {
    if (error != cudaSuccess && error_.ok()) error_ = FromCuda(error, what);
  }
  // A launch that failed has left its error with the thread: before others that are not the
  // device's are dropped.
  void NoteLaunches() { Note(cudaGetLastError(), "a launch"); }

  const int index_;
  cudaDeviceProp properties_ = {};
  cudaStream_t stream_ = nullptr;
  Status error_;
  Status before_recording_;  // error_ as it was
  std::unique_ptr<Products> products_;
  std::unique_ptr<CudnnBackend> cudnn_;
  bool asked_for_cudnn_ = false;
};

Result<std::unique_ptr<CudaDevice>> RealDevice::Open(int index) {
  LEPTON_ASSIGN_OR_RETURN(const auto devices, ListCudaDevices());
  if (index < 0 || index >= static_cast<int>(devices.size())) {
    return Unavailable("cuda:" + std::to_string(index) + ": this host has " +
                       std::to_string(devices.size()) + " GPUs");
  }
  std::unique_ptr<RealDevice> device(new RealDevice(index));
  LEPTON_RETURN_IF_ERROR(device->Start().WithContext(DeviceName(device->device())));
  return std::unique_ptr<CudaDevice>(std::move(device));
}

Status RealDevice::Start() {
  LEPTON_ASSIGN_OR_RETURN(const bool wants_cudnn, WantsCudnn());
  asked_for_cudnn_ = !wants_cudnn;
  LEPTON_RETURN_IF_ERROR(FromCuda(cudaSetDevice(index_), "cannot be used"));
  LEPTON_RETURN_IF_ERROR(FromCuda(cudaGetDeviceProperties(&properties_, index_), "properties"));
  if (properties_.major < 8) {
    return Unavailable(std::string(properties_.name) + " is too old: compute capability 8.0 or " +
                       "later is needed");
  }
  LEPTON_RETURN_IF_ERROR(
      FromCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "no stream"));
  // Freed memory stays with the process: plans come and go with the shapes of batches.
  cudaMemPool_t pool = nullptr;
  LEPTON_RETURN_IF_ERROR(FromCuda(cudaDeviceGetDefaultMemPool(&pool, index_), "memory pool"));
  uint64_t keep = UINT64_MAX;
  LEPTON_RETURN_IF_ERROR(FromCuda(
      cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "memory pool"));
  LEPTON_ASSIGN_OR_RETURN(products_, MakeCublasLtProducts(Stream{stream_}, error_));
  return Status::Ok();
}

RealDevice::~RealDevice() {
  FreeOwnMemory();
  cudnn_.reset();
  products_.reset();
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
}

// Opened when a kernel first asks: models of other layers neither need cuDNN nor wait for it.
CudnnBackend* RealDevice::cudnn() {
  if (!std::exchange(asked_for_cudnn_, true)) {
    auto opened = OpenCudnn(Stream{stream_}, error_);
    if (opened.ok()) {
      cudnn_ = std::move(*opened);
    } else {
      LOG(WARNING) << DeviceName(device())
                   << ": computes without cuDNN: " << opened.status().message();
    }
  }
  return cudnn_.get();
}

Result<void*> RealDevice::Allocate(size_t bytes) {
  NoteLaunches();
  void* data = nullptr;
  const Status status = FromCuda(cudaMallocAsync(&data, bytes, stream_),
                                 std::to_string(bytes) + " bytes of " + DeviceName(device()));
  if (!status.ok()) {
    cudaGetLastError();  // running out of memory is not the error of what comes next
    return status;
  }
  Zero(data, bytes);
  return data;
}

Result<void*> RealDevice::AllocatePinned(size_t bytes) {
  NoteLaunches();
  void* data = nullptr;
  const Status status =
      FromCuda(cudaMallocHost(&data, bytes), std::to_string(bytes) + " bytes of pinned memory");
  if (!status.ok()) {
    cudaGetLastError();
    return status;
  }
  return data;
}

Status RealDevice::Synchronize() {
  NoteLaunches();
  Note(cudaStreamSynchronize(stream_), "work on the device");
  return std::exchange(error_, Status::Ok());
}

Status RealDevice::BeginRecording() {
  NoteLaunches();
  before_recording_ = error_;
  error_ = Status::Ok();
  const Status begun = FromCuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                                "begin of capture");
  if (begun.ok()) return begun;
  cudaGetLastError();
  error_ = before_recording_;
  return begun;
}

// Nothing has run yet: what went wrong since BeginRecording is why there is no recording, and not
// an error of the work, which the caller queues again step by step.
Result<std::unique_ptr<RecordedWork>> RealDevice::EndRecording() {
  NoteLaunches();
  cudaGraph_t graph = nullptr;
  Note(cudaStreamEndCapture(stream_, &graph), "capture");
  cudaGraphExec_t executable = nullptr;
  if (error_.ok()) Note(cudaGraphInstantiate(&executable, graph, 0), "graph");
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
  const Status recorded = std::exchange(error_, before_recording_);
  if (!recorded.ok()) return FailedPrecondition(recorded.message());
  return std::unique_ptr<RecordedWork>(std::make_unique<CudaGraph>(executable, stream_));
}

}  // namespace

Result<std::unique_ptr<CudaDevice>> OpenCudaDevice(int index) {
  return RealDevice::Open(index);
}

Result<std::vector<CudaDeviceInfo>> ListCudaDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return Unavailable(std::string("no GPU can be used: ") + cudaGetErrorString(error));
  }
  if (count == 0) return Unavailable("this host has no GPU");
  std::vector<CudaDeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    LEPTON_RETURN_IF_ERROR(FromCuda(cudaGetDeviceProperties(&properties, i), "properties"));
    devices.push_back({properties.name, static_cast<int64_t>(properties.totalGlobalMem),
                       properties.major, properties.minor});
  }
  return devices;
}

}  // namespace lepton::kernels::cuda
