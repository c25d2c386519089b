// Matrix products with what follows them in one pass: cuBLASLt on a GPU, plain loops in the
// emulation. Threads: one caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

namespace lepton::kernels::cuda {

// y [batch, m, n] = a [batch, m, k] b [batch, k, n] + bias [n] + residual [batch, m, n], row-major.
// a is stored as [batch, k, m] when transposed, b as [batch, n, k]. Sums are f32, also those of
// parts that are computed apart. No relu: the library's makes a number of what is none, and a
// model that has diverged must show it.
struct ProductShape {
  int64_t batch = 1;
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  bool shared_a = false;     // a is one matrix for the whole batch
  bool bf16 = false;         // a and b; else f32
  bool bf16_result = false;  // y, and the bias; else f32
  bool bias = false;
  bool residual = false;  // f32, with an f32 result only

  friend bool operator==(const ProductShape&, const ProductShape&) = default;
};

// Each at a multiple of its elements' size; the workspace anywhere.
struct ProductOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;
  const void* residual = nullptr;
  void* y = nullptr;
  void* workspace = nullptr;
};

class Product {
 public:
  virtual ~Product() = default;
  virtual size_t workspace_bytes() const = 0;
  virtual void Run(const ProductOperands& operands) = 0;
};

// What a library takes: no empty matrices, and as many of a batch as it can count.
inline bool CanMultiply(const ProductShape& shape) {
  return shape.m > 0 && shape.n > 0 && shape.k > 0 && shape.batch > 0 &&
         shape.batch <= std::numeric_limits<int32_t>::max();
}

class Products {
 public:
  virtual ~Products() = default;
  // Null when the library has no way to compute it so; plain products work if CanMultiply.
  virtual std::unique_ptr<Product> Make(const ProductShape& shape) = 0;
};

}  // namespace lepton::kernels::cuda
