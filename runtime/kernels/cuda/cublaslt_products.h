// Products by cuBLASLt. Threads: one caller.
#pragma once

#include <memory>

#include "runtime/base/status.h"
#include "runtime/kernels/cuda/products.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// They run on the stream, which must outlive them, and so must `failed`, which becomes the error of
// the first product that the library refuses to run. kUnavailable without cuBLASLt, kInternal with
// what it says.
Result<std::unique_ptr<Products>> MakeCublasLtProducts(Stream stream, Status& failed);

}  // namespace lepton::kernels::cuda
