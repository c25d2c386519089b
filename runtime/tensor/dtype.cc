#include "runtime/tensor/dtype.h"

namespace lepton {

size_t DTypeSize(DType dtype) {
  return dtype == DType::kBF16 ? 2 : 4;
}

std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
  }
  return "unknown";
}

}  // namespace lepton
