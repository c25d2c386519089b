// Numbers that the host and a device both work on: the host's copy, the device's, and which of them
// is newer. Without a device there is one, the host's, and nothing is ever copied.
// Ownership: owns both; the backend must outlive it. Threads: one caller.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/kernels/device_backend.h"
#include "runtime/tensor/buffer.h"

namespace lepton::nn {

class DeviceFloats {
 public:
  DeviceFloats() = default;
  // Zeros. kResourceExhausted when the device is full.
  static Result<DeviceFloats> Make(kernels::DeviceBackend* backend, int64_t elements);

  int64_t size() const { return elements_; }
  // The host's copy, brought up to date, for reading and writing until the next call of anything
  // else here: from now on it is the newer one. When the device failed it holds no numbers (NaN).
  std::span<float> Host();
  // The copy that the program works on, which keeps its place: as it is, and brought up to date.
  float* place() { return backend_ == nullptr ? host_.as<float>() : device_.as<float>(); }
  float* Current();
  // The program wrote to place().
  void Wrote() { newer_ = backend_ == nullptr ? Newer::kNone : Newer::kDevice; }

 private:
  enum class Newer : uint8_t { kNone, kHost, kDevice };
  kernels::DeviceBackend* backend_ = nullptr;
  int64_t elements_ = 0;
  Buffer host_;  // pinned where there is a device, made when it is first asked for
  Buffer device_;
  Newer newer_ = Newer::kNone;
};

}  // namespace lepton::nn
