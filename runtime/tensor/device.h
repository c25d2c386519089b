// Where a tensor lives and a kernel runs. Threads: plain values.
#pragma once

#include <cstdint>
#include <string>

namespace lepton {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // among the devices of its kind on this host

  friend bool operator==(const Device&, const Device&) = default;
};

std::string DeviceName(const Device& device);  // "cpu", "cuda:1"

}  // namespace lepton
