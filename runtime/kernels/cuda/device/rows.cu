// Softmax and the losses.
#include "runtime/kernels/cuda/device/rows.h"

#include "runtime/kernels/cuda/device/rows.cuh"

namespace lepton::kernels::cuda {
namespace {

__global__ void Softmax(int64_t n, int logarithm, const float* x, float* y) {
  x += blockIdx.x * n;
  y += blockIdx.x * n;
  const MaxSum row = RowMaxSum(x, n, 1.0f);
  const float log_sum = logf(row.sum);
  const float share = 1.0f / row.sum;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    y[i] = logarithm != 0 ? x[i] - row.max - log_sum : expf(x[i] - row.max) * share;
  }
}

__global__ void SoftmaxGrad(int64_t n, int logarithm, const float* y, const float* dy, float* dx) {
  y += blockIdx.x * n;
  dy += blockIdx.x * n;
  dx += blockIdx.x * n;
  const float sum = RowSum(n, [=](int64_t i) { return logarithm != 0 ? dy[i] : y[i] * dy[i]; });
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    dx[i] = logarithm != 0 ? dy[i] - expf(y[i]) * sum : y[i] * (dy[i] - sum);
  }
}

__global__ void CrossEntropy(int64_t n, const float* x, const int32_t* labels, float* loss) {
  x += blockIdx.x * n;
  const int32_t label = labels[blockIdx.x];
  const MaxSum row = RowMaxSum(x, n, 1.0f);
  if (threadIdx.x != 0) return;
  loss[blockIdx.x] = label < 0 ? 0.0f : logf(row.sum) + row.max - x[label];
}

__global__ void CrossEntropyGrad(int64_t n, const float* x, const int32_t* labels,
                                 const float* dloss, float* dx) {
  x += blockIdx.x * n;
  dx += blockIdx.x * n;
  const int32_t label = labels[blockIdx.x];
  const MaxSum row = RowMaxSum(x, n, 1.0f);
  const float scale = label < 0 ? 0.0f : dloss[blockIdx.x];
  const float share = 1.0f / row.sum;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    dx[i] = scale * (expf(x[i] - row.max) * share - (i == label ? 1.0f : 0.0f));
  }
}

__global__ void BinaryCrossEntropyLoss(int64_t n, const float* x, const float* targets,
                                       float* loss) {
  x += blockIdx.x * n;
  targets += blockIdx.x * n;
  const float sum = RowSum(n, [=](int64_t i) {
    return fmaxf(x[i], 0.0f) - x[i] * targets[i] + log1pf(expf(-fabsf(x[i])));
  });
  if (threadIdx.x == 0) loss[blockIdx.x] = sum / static_cast<float>(n);
}

__global__ void MeanSquaredErrorLoss(int64_t n, const float* x, const float* targets, float* loss) {
  x += blockIdx.x * n;
  targets += blockIdx.x * n;
  const float sum = RowSum(n, [=](int64_t i) { return (x[i] - targets[i]) * (x[i] - targets[i]); });
  if (threadIdx.x == 0) loss[blockIdx.x] = sum / static_cast<float>(n);
}

__global__ void RowLossGrad(RowLoss kind, int64_t n, const float* x, const float* targets,
                            const float* dloss, float* dx) {
  const int64_t start = blockIdx.x * n;
  const float scale = dloss[blockIdx.x] / static_cast<float>(n);
  for (int64_t i = start + threadIdx.x; i < start + n; i += blockDim.x) {
    dx[i] = kind == RowLoss::kMeanSquaredError ? 2.0f * scale * (x[i] - targets[i])
                                               : scale * (1.0f / (1.0f + expf(-x[i])) - targets[i]);
  }
}

__global__ void Distillation(int64_t n, float temperature, const float* student,
                             const float* teacher, float* loss) {
  student += blockIdx.x * n;
  teacher += blockIdx.x * n;
  const float factor = 1.0f / temperature;
  const MaxSum of_student = RowMaxSum(student, n, factor);
  const MaxSum of_teacher = RowMaxSum(teacher, n, factor);
  const float student_log = of_student.max + logf(of_student.sum);
  const float teacher_log = of_teacher.max + logf(of_teacher.sum);
  const float sum = RowSum(n, [=](int64_t i) {
    const float t = teacher[i] * factor - teacher_log;
    return expf(t) * (t - (student[i] * factor - student_log));
  });
  if (threadIdx.x == 0) loss[blockIdx.x] = temperature * temperature * sum;
}

__global__ void DistillationGrad(int64_t n, float temperature, const float* student,
                                 const float* teacher, const float* dloss, float* dx) {
  student += blockIdx.x * n;
  teacher += blockIdx.x * n;
  dx += blockIdx.x * n;
  const float factor = 1.0f / temperature;
  const MaxSum of_student = RowMaxSum(student, n, factor);
  const MaxSum of_teacher = RowMaxSum(teacher, n, factor);
  const float scale = temperature * dloss[blockIdx.x];
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float s = expf(student[i] * factor - of_student.max) / of_student.sum;
    const float t = expf(teacher[i] * factor - of_teacher.max) / of_teacher.sum;
    dx[i] = scale * (s - t);
  }
}

}  // namespace

void RunSoftmax(RowsShape shape, bool logarithm, const float* x, float* y, Stream stream) {
  Launch(Softmax, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, logarithm, x, y);
}

void RunSoftmaxGrad(RowsShape shape, bool logarithm, const float* y, const float* dy, float* dx,
                    Stream stream) {
  Launch(SoftmaxGrad, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, logarithm, y, dy,
         dx);
}

void RunCrossEntropy(RowsShape shape, const float* x, const int32_t* labels, float* loss,
                     Stream stream) {
  Launch(CrossEntropy, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, x, labels, loss);
}

void RunCrossEntropyGrad(RowsShape shape, const float* x, const int32_t* labels, const float* dloss,
                         float* dx, Stream stream) {
  Launch(CrossEntropyGrad, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, x, labels,
         dloss, dx);
}

void RunRowLoss(RowLoss kind, RowsShape shape, const float* x, const float* targets, float* loss,
                Stream stream) {
  const auto kernel =
      kind == RowLoss::kMeanSquaredError ? MeanSquaredErrorLoss : BinaryCrossEntropyLoss;
  Launch(kernel, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, x, targets, loss);
}

void RunRowLossGrad(RowLoss kind, RowsShape shape, const float* x, const float* targets,
                    const float* dloss, float* dx, Stream stream) {
  LaunchFlat(RowLossGrad, Grid{shape.rows}, RowThreads(shape.n), stream, kind, shape.n, x, targets,
             dloss, dx);
}

void RunDistillation(RowsShape shape, float temperature, const float* student, const float* teacher,
                     float* loss, Stream stream) {
  Launch(Distillation, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, temperature,
         student, teacher, loss);
}

void RunDistillationGrad(RowsShape shape, float temperature, const float* student,
                         const float* teacher, const float* dloss, float* dx, Stream stream) {
  Launch(DistillationGrad, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, temperature,
         student, teacher, dloss, dx);
}

}  // namespace lepton::kernels::cuda
