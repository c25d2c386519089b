#include <vector>

#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/reference_int8.h"

namespace lepton::kernels::reference {
namespace {

double Element(const TensorView& matrix, int64_t offset, int64_t row, int64_t column,
               bool transposed) {
  const int64_t width = matrix.shape().back();
  const int64_t index = offset + (transposed ? column * width + row : row * width + column);
  if (matrix.type.dtype == DType::kBF16) return BF16::ToFloat(matrix.as<BF16>()[index]);
  return matrix.as<float>()[index];
}

// `batch` products of equal shape, one after the other.
void Multiply(const KernelContext& context, int64_t batch) {
  const TensorView& a = context.input(0);
  const TensorView& b = context.input(1);
  const TensorView& c = context.output(0);
  const bool transpose_a = context.attributes().Int("transpose_a") != 0;
  const bool transpose_b = context.attributes().Int("transpose_b") != 0;
  const int64_t inner = transpose_a ? a.shape().rows() / batch : a.shape().back();
  const int64_t rows = c.shape().rows() / batch;
  const int64_t columns = c.shape().back();
  for (int64_t i = 0; i < batch * rows; ++i) {
    const int64_t offset_a = i / rows * rows * inner;
    const int64_t offset_b = i / rows * inner * columns;
    for (int64_t column = 0; column < columns; ++column) {
      double sum = 0;
      for (int64_t k = 0; k < inner; ++k) {
        sum += Element(a, offset_a, i % rows, k, transpose_a) *
               Element(b, offset_b, k, column, transpose_b);
      }
      c.as<float>()[i * columns + column] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void MatmulInt8(const KernelContext& context) {
  const TensorView& x = context.input(0);
  const float* w = context.input(1).as<float>();
  const TensorView& y = context.output(0);
  const bool turned = context.attributes().Int("transpose_b") != 0;
  const int64_t inner = x.shape().back();
  const int64_t rows = y.shape().rows(), columns = y.shape().back();
  std::vector<std::vector<int32_t>> right(columns);
  std::vector<float> scales;
  for (int64_t j = 0; j < columns; ++j) {
    scales.push_back(QuantizeInt8(
        inner, [&](int64_t k) { return w[turned ? j * inner + k : k * columns + j]; }, right[j]));
  }
  std::vector<int32_t> left;
  for (int64_t i = 0; i < rows; ++i) {
    const float scale = QuantizeInt8(
        inner, [&](int64_t k) { return static_cast<float>(Element(x, 0, i, k, false)); }, left);
    for (int64_t j = 0; j < columns; ++j) {
      int32_t sum = 0;
      for (int64_t k = 0; k < inner; ++k) sum += left[k] * right[j][k];
      y.as<float>()[i * columns + j] = static_cast<float>(sum) * (scale * scales[j]);
    }
  }
}

void Matmul(const KernelContext& context) {
  Multiply(context, 1);
}

void BatchMatmul(const KernelContext& context) {
  const Shape& shape = context.output(0).shape();
  Multiply(context, shape.rows() / shape[shape.rank() - 2]);
}

}  // namespace lepton::kernels::reference
