#include "runtime/kernels/cuda/emulation/emulated_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/emulation/threads.h"

namespace lepton::kernels::cuda {

namespace emulation {
namespace {

constexpr size_t kDeviceBytes = size_t{8} << 30;  // more than that is refused, as a full GPU does

// Work is done when it is queued: there is nothing to wait for.
class EmulatedFence final : public Fence {
 public:
  explicit EmulatedFence(const Queue& queue) : queue_(queue) {}
  void Record() override { CHECK(!queue_.recording()) << "a fence inside of recorded work"; }
  void Wait() override { CHECK(!queue_.recording()) << "a wait inside of recorded work"; }

 private:
  const Queue& queue_;
};

class EmulatedRecording final : public RecordedWork {
 public:
  explicit EmulatedRecording(std::vector<std::function<void()>> work) : work_(std::move(work)) {}
  void Replay() override {
    for (const auto& piece : work_) piece();
  }

 private:
  const std::vector<std::function<void()>> work_;
};

}  // namespace

void Enqueue(Stream stream, std::function<void()> work) {
  static_cast<Queue*>(stream.handle)->Add(std::move(work));
}

EmulatedDevice::~EmulatedDevice() {
  FreeOwnMemory();
}

Result<void*> EmulatedDevice::Allocate(size_t bytes) {
  CHECK(!queue_.recording()) << "memory is allocated inside of recorded work";
  if (allocated_ + bytes > kDeviceBytes) {
    return ResourceExhausted("emulated GPU: " + std::to_string(bytes) + " bytes do not fit");
  }
  constexpr size_t kAlign = 256;
  void* const data = std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
  if (data == nullptr) return ResourceExhausted("emulated GPU: the host is out of memory");
  std::memset(data, 0, bytes);
  memory_.push_back({data, bytes});
  allocated_ += bytes;
  return data;
}

void EmulatedDevice::Free(void* data) {
  const auto found = std::find_if(memory_.begin(), memory_.end(),
                                  [&](const auto& piece) { return piece.first == data; });
  CHECK(found != memory_.end()) << "memory of elsewhere is freed";
  allocated_ -= found->second;
  memory_.erase(found);
  std::free(data);
}

void EmulatedDevice::CopyIn(void* to, const void* from_host, size_t bytes) {
  CopyWithin(to, from_host, bytes);
}
void EmulatedDevice::CopyOut(void* to_host, const void* from, size_t bytes) {
  CopyWithin(to_host, from, bytes);
}
void EmulatedDevice::CopyWithin(void* to, const void* from, size_t bytes) {
  queue_.Add([=] { std::memcpy(to, from, bytes); });
}
void EmulatedDevice::Zero(void* data, size_t bytes) {
  queue_.Add([=] { std::memset(data, 0, bytes); });
}

Status EmulatedDevice::Synchronize() {
  CHECK(!queue_.recording()) << "Synchronize inside of recorded work";
  return Status::Ok();
}

std::unique_ptr<Fence> EmulatedDevice::MakeFence() {
  return std::make_unique<EmulatedFence>(queue_);
}

Status EmulatedDevice::BeginRecording() {
  queue_.Begin();
  return Status::Ok();
}

Result<std::unique_ptr<RecordedWork>> EmulatedDevice::EndRecording() {
  return std::unique_ptr<RecordedWork>(std::make_unique<EmulatedRecording>(queue_.End()));
}

}  // namespace emulation

Result<std::unique_ptr<CudaDevice>> OpenCudaDevice(int index) {
  if (index != 0) return Unavailable("there is one emulated GPU");
  return std::unique_ptr<CudaDevice>(std::make_unique<emulation::EmulatedDevice>());
}

Result<std::vector<CudaDeviceInfo>> ListCudaDevices() {
  return std::vector<CudaDeviceInfo>{{"emulated GPU", int64_t{8} << 30, 0, 0}};
}

}  // namespace lepton::kernels::cuda
