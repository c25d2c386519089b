#include "runtime/nn/device_floats.h"

#include <cstring>

#include "runtime/base/logging.h"

namespace lepton::nn {

Result<DeviceFloats> DeviceFloats::Make(kernels::DeviceBackend* backend, int64_t elements) {
  DeviceFloats floats;
  floats.backend_ = backend;
  floats.elements_ = elements;
  const size_t bytes = static_cast<size_t>(elements) * sizeof(float);
  if (backend == nullptr) {
    floats.host_ = Buffer(bytes);
  } else {
    LEPTON_ASSIGN_OR_RETURN(floats.device_, Buffer::On(backend, bytes));
  }
  return floats;
}

std::span<float> DeviceFloats::Host() {
  const auto elements = static_cast<size_t>(elements_);
  const size_t bytes = elements * sizeof(float);
  if (backend_ == nullptr || bytes == 0) return {host_.as<float>(), elements};
  if (host_.size() == 0) {
    auto pinned = Buffer::Pinned(*backend_, bytes);
    // Copies from plain memory are slower, not wrong.
    host_ = pinned.ok() ? *std::move(pinned) : Buffer(bytes);
    if (newer_ == Newer::kNone) newer_ = Newer::kDevice;
  }
  if (newer_ == Newer::kDevice) {
    backend_->CopyOut(host_.data(), device_.data(), bytes);
    const Status status = backend_->Synchronize();
    // What the host would see is not what the device should have computed: nobody may take it for
    // a result.
    if (!status.ok()) {
      LOG(ERROR) << backend_->description() << ": " << status.ToString();
      std::memset(host_.data(), 0xff, bytes);  // not numbers
    }
  }
  newer_ = Newer::kHost;
  return {host_.as<float>(), elements};
}

float* DeviceFloats::Current() {
  if (newer_ == Newer::kHost && backend_ != nullptr) {
    backend_->CopyIn(device_.data(), host_.data(), host_.size());
    // The host may write to its copy as soon as it asks for it again.
    const Status status = backend_->Synchronize();
    LOG_IF(ERROR, !status.ok()) << backend_->description() << ": " << status.ToString();
    newer_ = Newer::kNone;
  }
  return place();
}

}  // namespace lepton::nn
