// Products by cuBLASLt. Threads: one caller.
#pragma once

#include <memory>

#include "runtime/base/status.h"
#include "runtime/kernels/cuda/products.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// They run on the stream, which must outlive them. kInternal says what cuBLASLt says.
Result<std::unique_ptr<Products>> MakeCublasLtProducts(Stream stream);

}  // namespace lepton::kernels::cuda
