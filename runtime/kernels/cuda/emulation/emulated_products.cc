// What products.h promises, in plain loops with f32 sums.
#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/emulation/emulated_device.h"
#include "runtime/tensor/dtype.h"

namespace lepton::kernels::cuda::emulation {
namespace {

float At(const void* data, bool bf16, int64_t index) {
  return bf16 ? BF16::ToFloat(static_cast<const BF16*>(data)[index])
              : static_cast<const float*>(data)[index];
}

// A matrix widened to f32, [rows, columns] however it is stored.
std::vector<float> Widened(const void* data, bool bf16, int64_t offset, int64_t rows,
                           int64_t columns, bool transposed) {
  std::vector<float> wide(rows * columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t index = transposed ? j * rows + i : i * columns + j;
      wide[i * columns + j] = At(data, bf16, offset + index);
    }
  }
  return wide;
}

class EmulatedProduct final : public Product {
 public:
  EmulatedProduct(const ProductShape& shape, Queue& queue) : s_(shape), queue_(queue) {}
  size_t workspace_bytes() const override { return 0; }
  void Run(const ProductOperands& operands) override {
    queue_.Add([s = s_, operands] {
      for (int64_t batch = 0; batch < s.batch; ++batch) Multiply(s, operands, batch);
    });
  }

 private:
  static void Multiply(const ProductShape& s, const ProductOperands& o, int64_t batch) {
    const auto a =
        Widened(o.a, s.bf16, (s.shared_a ? 0 : batch) * s.m * s.k, s.m, s.k, s.transpose_a);
    const auto b = Widened(o.b, s.bf16, batch * s.k * s.n, s.k, s.n, s.transpose_b);
    std::vector<float> row(s.n);
    for (int64_t i = 0; i < s.m; ++i) {
      std::fill(row.begin(), row.end(), 0.0f);
      for (int64_t k = 0; k < s.k; ++k) {
        const float factor = a[i * s.k + k];
        for (int64_t j = 0; j < s.n; ++j) row[j] += factor * b[k * s.n + j];
      }
      Finish(s, o, (batch * s.m + i) * s.n, row);
    }
  }

  static void Finish(const ProductShape& s, const ProductOperands& o, int64_t start,
                     const std::vector<float>& row) {
    for (int64_t j = 0; j < s.n; ++j) {
      float y = row[j];
      if (s.residual) y += static_cast<const float*>(o.residual)[start + j];
      if (s.bias) y += At(o.bias, s.bf16_result, j);
      if (s.bf16_result) {
        static_cast<BF16*>(o.y)[start + j] = BF16::FromFloat(y);
      } else {
        static_cast<float*>(o.y)[start + j] = y;
      }
    }
  }

  const ProductShape s_;
  Queue& queue_;
};

}  // namespace

std::unique_ptr<Product> EmulatedProducts::Make(const ProductShape& shape) {
  CHECK(!(shape.residual && shape.bf16_result)) << "products.h: not asked for";
  if (shape.bias || shape.residual || shape.bf16_result) {
    if (refuse_) return nullptr;
    ++epilogues_;
  }
  return std::make_unique<EmulatedProduct>(shape, queue_);
}

}  // namespace lepton::kernels::cuda::emulation
