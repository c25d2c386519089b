#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

double Element(const TensorView& matrix, int64_t row, int64_t column, bool transposed) {
  const int64_t width = matrix.shape().back();
  const int64_t index = transposed ? column * width + row : row * width + column;
  if (matrix.type.dtype == DType::kBF16) return BF16::ToFloat(matrix.as<BF16>()[index]);
  return matrix.as<float>()[index];
}

}  // namespace

void Matmul(const KernelContext& context) {
  const TensorView& a = context.input(0);
  const TensorView& b = context.input(1);
  const TensorView& c = context.output(0);
  const bool transpose_a = context.attributes().Int("transpose_a") != 0;
  const bool transpose_b = context.attributes().Int("transpose_b") != 0;
  const int64_t inner = transpose_a ? a.shape().rows() : a.shape().back();
  for (int64_t row = 0; row < c.shape().rows(); ++row) {
    for (int64_t column = 0; column < c.shape().back(); ++column) {
      double sum = 0;
      for (int64_t k = 0; k < inner; ++k) {
        sum += Element(a, row, k, transpose_a) * Element(b, k, column, transpose_b);
      }
      c.as<float>()[row * c.shape().back() + column] = static_cast<float>(sum);
    }
  }
}

}  // namespace lepton::kernels::reference
