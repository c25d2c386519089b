#include "runtime/tensor/device.h"

namespace lepton {

std::string DeviceName(const Device& device) {
  return device.kind == DeviceKind::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

}  // namespace lepton
