#include "tests/runtime/cuda/fake_cudart.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using lepton::cuda_test::FakeCuda;
using lepton::cuda_test::TheFakeCuda;

// The run time's own names of what it hides.
struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  int device = 0;
  bool capturing = false;
  bool spoilt = false;
  CUgraph_st* graph = nullptr;
};

namespace {

thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;

cudaError_t Say(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

cudaError_t Do(cudaStream_t stream, std::function<void()> work) {
  if (stream->device != current) ++TheFakeCuda().elsewhere;
  if (!stream->capturing) {
    work();
    return cudaSuccess;
  }
  if (stream->spoilt) return Say(cudaErrorStreamCaptureInvalidated);
  if (TheFakeCuda().no_capture) {
    stream->spoilt = true;
    return Say(cudaErrorStreamCaptureUnsupported);
  }
  stream->graph->work.push_back(std::move(work));
  return cudaSuccess;
}

}  // namespace

namespace lepton::cuda_test {

FakeCuda& TheFakeCuda() {
  static FakeCuda fake;
  return fake;
}
void FailALaunch() {
  Fail(cudaErrorInvalidConfiguration);
}
void Fail(int error) {
  Say(static_cast<cudaError_t>(error));
}

}  // namespace lepton::cuda_test

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  text = "fake error " + std::to_string(error);
  return text.c_str();
}
cudaError_t cudaGetLastError() {
  return std::exchange(last, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = TheFakeCuda().devices;
  return *count > 0 ? cudaSuccess : Say(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= TheFakeCuda().devices) return Say(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}
// Each process has GPUs of its own, unless LEPTON_FAKE_GPU names the one that it shares.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  const char* const named = std::getenv("LEPTON_FAKE_GPU");
  const std::string name =
      named != nullptr ? named : std::to_string(getpid()) + "." + std::to_string(device);
  name.copy(properties->uuid.bytes, sizeof(properties->uuid.bytes));
  std::strcpy(properties->name, "fake GPU");
  properties->major = 9;
  properties->multiProcessorCount = 132;
  properties->totalGlobalMem = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st{.device = current};
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream->capturing ? Say(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream->device != current) ++TheFakeCuda().elsewhere;
  if (TheFakeCuda().broken != 0) return Say(static_cast<cudaError_t>(TheFakeCuda().broken.load()));
  // Not an error, so nobody's last one.
  return TheFakeCuda().not_ready.fetch_sub(1) > 0 ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (TheFakeCuda().no_memory) return Say(cudaErrorMemoryAllocation);
  *data = std::malloc(bytes == 0 ? 1 : bytes);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t) {
  return cudaMalloc(data, bytes);
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  return cudaMalloc(data, bytes);
}
cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t) {
  return cudaFree(data);
}
cudaError_t cudaFreeHost(void* data) {
  return cudaFree(data);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return Do(stream, [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return Do(stream, [=] { std::memset(to, value, bytes); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capturing = true;
  stream->spoilt = false;
  stream->graph = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  stream->capturing = false;
  *graph = std::exchange(stream->graph, nullptr);
  if (!stream->spoilt) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return Say(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  if (TheFakeCuda().no_graph) return Say(cudaErrorMemoryAllocation);
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  ++TheFakeCuda().graphs;
  for (const auto& piece : executable->work) piece();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
// What nvcc's objects call to be known, and to launch.
void** __cudaRegisterFatBinary(void*) {
  return nullptr;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction() {}
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, CUstream_st* stream) {
  Do(stream, [] { ++TheFakeCuda().kernels; });
  return 1;  // go no further
}
cudaError_t __cudaPopCallConfiguration() {
  return cudaSuccess;
}
cudaError_t __cudaGetKernel() {
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel() {
  return cudaSuccess;
}

}  // extern "C"
