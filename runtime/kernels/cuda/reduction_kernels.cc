// Glue of sums over axes.
#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/strided.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/movement.h"
#include "runtime/kernels/cuda/device/rows.h"

namespace lepton::kernels::cuda {
namespace {

// One sum per column: over all rows, or over the first axis of a matrix.
RowsShape ColumnsOf(const Shape& shape) {
  return {shape.rows(), shape.back()};
}

size_t ColumnBytes(const KernelRequest& request) {
  return static_cast<size_t>(ColumnSumsWorkspace(ColumnsOf(request.inputs[0].shape)));
}

float FactorOf(const KernelContext& c) {
  if (c.attributes().Text("kind") != "mean") return 1;
  const auto axis = static_cast<int>(c.attributes().Int("axis"));
  return 1.0f / static_cast<float>(c.input(0).shape()[axis]);
}

bool SumsColumns(const KernelRequest& request) {
  return request.inputs[0].shape.rank() == 2 && request.attributes->Int("axis") == 0;
}

void ColumnSumsOf(const KernelContext& c, CudaDevice& device) {
  RunColumnSums(ColumnsOf(c.input(0).shape()), c.input(0).data, IsBf16(c.input(0)), FactorOf(c),
                c.output(0).data, IsBf16(c.output(0)), static_cast<float*>(c.workspace()),
                device.stream());
}

void ReduceOf(const KernelContext& c, CudaDevice& device) {
  const TensorView& x = c.input(0);
  const TensorView& y = c.output(0);
  const auto axis = static_cast<int>(c.attributes().Int("axis"));
  if (axis == x.shape().rank() - 1) {
    RunRowSums(ColumnsOf(x.shape()), x.data, IsBf16(x), FactorOf(c), y.data, IsBf16(y),
               device.stream());
    return;
  }
  AxisShape around;
  for (int i = 0; i < x.shape().rank(); ++i) {
    (i < axis ? around.outer : i == axis ? around.extent : around.inner) *= x.shape()[i];
  }
  RunAxisSum(around, x.data, IsBf16(x), FactorOf(c), y.data, IsBf16(y), device.stream());
}

// The output's shape, filled up with ones, is a leading part of ones and then the input's: a bias.
bool SumsLeadingAxes(const KernelRequest& request) {
  const Shape& x = request.inputs[0].shape;
  const Shape& y = request.outputs[0].shape;
  return x.rank() > 0 && y.rank() > 0 && y.back() == x.back() && y.rows() == 1;
}

void SumToOf(const KernelContext& c, CudaDevice& device) {
  const Shape& x = c.input(0).shape();
  const Shape& y = c.output(0).shape();
  const std::vector<int64_t> dense = DenseStrides(x);
  SumToArguments arguments{.x = c.input(0).as<float>(), .y = c.output(0).as<float>()};
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (x[axis] == 1) continue;
    const int there = axis - (x.rank() - y.rank());
    const bool kept = there >= 0 && y[there] == x[axis];
    int& axes = kept ? arguments.kept : arguments.reduced;
    CHECK_LT(axes, SumToArguments::kAxes);
    (kept ? arguments.kept_extents : arguments.reduced_extents)[axes] = x[axis];
    (kept ? arguments.kept_strides : arguments.reduced_strides)[axes] = dense[axis];
    (kept ? arguments.outputs : arguments.terms) *= x[axis];
    ++axes;
  }
  RunSumTo(arguments, device.stream());
}

}  // namespace

std::vector<KernelEntry> ReductionKernels() {
  std::vector<KernelEntry> entries;
  const auto columns = &DeviceFunctionWithWorkspace<ColumnSumsOf, ColumnBytes>::Create;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(CudaEntry("reduce", dtype, "own columns", &SumsColumns, columns));
    entries.push_back(Own<ReduceOf>("reduce", dtype));
    entries.push_back(CudaEntry("sum_rows", dtype, "own", &AnyRequest, columns));
  }
  entries.push_back(CudaEntry("sum_to", DType::kF32, "own columns", &SumsLeadingAxes, columns));
  entries.push_back(Own<SumToOf>("sum_to"));
  return entries;
}

}  // namespace lepton::kernels::cuda
