// Ops along the last axis: a block takes a row of n elements. Rows are f32 unless it says bf16.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

struct RowsShape {
  int64_t rows = 0;
  int64_t n = 0;
};

// softmax, or its logarithm.
void RunSoftmax(RowsShape shape, bool logarithm, const float* x, float* y, Stream stream);
void RunSoftmaxGrad(RowsShape shape, bool logarithm, const float* y, const float* dy, float* dx,
                    Stream stream);

// labels < 0: no loss.
void RunCrossEntropy(RowsShape shape, const float* x, const int32_t* labels, float* loss,
                     Stream stream);
void RunCrossEntropyGrad(RowsShape shape, const float* x, const int32_t* labels, const float* dloss,
                         float* dx, Stream stream);
enum class RowLoss { kBinaryCrossEntropy, kMeanSquaredError };
void RunRowLoss(RowLoss kind, RowsShape shape, const float* x, const float* targets, float* loss,
                Stream stream);
void RunRowLossGrad(RowLoss kind, RowsShape shape, const float* x, const float* targets,
                    const float* dloss, float* dx, Stream stream);
void RunDistillation(RowsShape shape, float temperature, const float* student, const float* teacher,
                     float* loss, Stream stream);
void RunDistillationGrad(RowsShape shape, float temperature, const float* student,
                         const float* teacher, const float* dloss, float* dx, Stream stream);

// y = (x - mean) * rstd * gain + bias; without bias and mean the root mean square norm. y_bf16: the
// same rounded. Either may be null.
struct NormArguments {
  RowsShape shape;
  float epsilon = 0;
  const float* x = nullptr;
  const float* gain = nullptr;
  const float* bias = nullptr;  // null: root mean square
  float* y = nullptr;
  void* y_bf16 = nullptr;
  float* mean = nullptr;
  float* rstd = nullptr;
};
void RunNorm(const NormArguments& arguments, Stream stream);

// dx, and column sums of dy * h and, with `mean`, of dy; h is what the gain multiplies.
struct NormGradArguments {
  RowsShape shape;
  const float* x = nullptr;
  const float* gain = nullptr;
  const float* mean = nullptr;  // null: root mean square
  const float* rstd = nullptr;
  const void* dy = nullptr;
  bool bf16_dy = false;
  float* dx = nullptr;
  float* dgain = nullptr;
  float* dbias = nullptr;
  float* workspace = nullptr;  // NormGradWorkspace
};
void RunNormGrad(const NormGradArguments& arguments, Stream stream);
int64_t NormGradWorkspace(RowsShape shape);  // bytes

// Sums over rows: y [n] = factor * sum of x [rows, n].
void RunColumnSums(RowsShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                   float* workspace, Stream stream);
int64_t ColumnSumsWorkspace(RowsShape shape);  // bytes
// y [rows] = factor * sum of each row.
void RunRowSums(RowsShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                Stream stream);

}  // namespace lepton::kernels::cuda
