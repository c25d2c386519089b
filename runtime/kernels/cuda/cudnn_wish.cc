#include <cstdlib>
#include <string_view>

#include "runtime/kernels/cuda/cudnn_backend.h"

namespace lepton::kernels::cuda {

Result<bool> WantsCudnn() {
  const char* const wish = std::getenv("LEPTON_CUDNN");
  const std::string_view text = wish == nullptr ? "on" : wish;
  if (text == "on" || text == "off") return text == "on";
  return InvalidArgument("LEPTON_CUDNN: '" + std::string(text) + "' is unknown: must be on or off");
}

}  // namespace lepton::kernels::cuda
