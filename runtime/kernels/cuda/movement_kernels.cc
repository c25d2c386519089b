// Glue of the ops that move elements.
#include <algorithm>

#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/gather_view.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/movement.h"

namespace lepton::kernels::cuda {
namespace {

AxisShape AroundAxis(const Shape& shape, int64_t axis) {
  AxisShape around;
  for (int i = 0; i < shape.rank(); ++i) {
    (i < axis ? around.outer : i == axis ? around.extent : around.inner) *= shape[i];
  }
  return around;
}

int ElementBytes(const TensorView& view) {
  return static_cast<int>(DTypeSize(view.type.dtype));
}

// y's places walked in x with these strides; neighbouring axes that are walked as one are merged.
StridedArguments Walk(const KernelContext& context, const std::vector<int64_t>& strides,
                      int64_t offset) {
  const Shape& shape = context.output(0).shape();
  StridedArguments arguments;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    const int last = arguments.axes - 1;
    if (last >= 0 && arguments.strides[last] == strides[axis] * shape[axis]) {
      arguments.extents[last] *= shape[axis];
      arguments.strides[last] = strides[axis];
      continue;
    }
    CHECK_LT(arguments.axes, StridedArguments::kAxes);
    arguments.extents[arguments.axes] = shape[axis];
    arguments.strides[arguments.axes++] = strides[axis];
  }
  arguments.offset = offset;
  arguments.total = shape.elements();
  arguments.x = context.input(0).data;
  arguments.y = context.output(0).data;
  arguments.bytes = ElementBytes(context.output(0));
  return arguments;
}

void TransposeOf(const KernelContext& c, CudaDevice& device) {
  const auto strides = TransposedStrides(c.input(0).shape(), c.attributes().Ints("perm"));
  RunStrided(Walk(c, strides, 0), device.stream());
}

void SliceOf(const KernelContext& c, CudaDevice& device) {
  const SliceWalk walk(c.input(0).shape(), c.attributes());
  RunStrided(Walk(c, walk.strides, walk.offset), device.stream());
}

void BroadcastToOf(const KernelContext& c, CudaDevice& device) {
  const auto strides = BroadcastStrides(c.input(0).shape(), c.output(0).shape());
  RunStrided(Walk(c, strides, 0), device.stream());
}

void ExpandOf(const KernelContext& c, CudaDevice& device) {
  const Shape& y = c.output(0).shape();
  const auto axis = static_cast<int>(c.attributes().Int("axis"));
  std::vector<int64_t> strides = DenseStrides(c.input(0).shape());
  strides.insert(strides.begin() + axis, 0);
  StridedArguments arguments = Walk(c, strides, 0);
  arguments.bytes = 0;
  arguments.bf16_x = IsBf16(c.input(0));
  arguments.bf16_y = IsBf16(c.output(0));
  if (c.attributes().Int("divide") != 0) arguments.factor = 1.0f / static_cast<float>(y[axis]);
  RunStrided(arguments, device.stream());
}

void ReshapeOf(const KernelContext& c, CudaDevice& device) {
  device.CopyWithin(c.output(0).data, c.input(0).data, c.input(0).type.bytes());
}

void SliceGradOf(const KernelContext& c, CudaDevice& device) {
  const int64_t axis = c.attributes().Int("axis");
  RunSliceGrad(AroundAxis(c.output(0).shape(), axis), c.attributes().Int("begin"),
               c.attributes().Int("step", 1), c.input(0).shape()[static_cast<int>(axis)],
               c.input(0).as<float>(), c.output(0).as<float>(), device.stream());
}

void ConcatOf(const KernelContext& c, CudaDevice& device) {
  const TensorView& y = c.output(0);
  const int64_t axis = c.attributes().Int("axis");
  const auto length = [&](const Shape& shape) {
    const AxisShape around = AroundAxis(shape, axis);
    return around.extent * around.inner;
  };
  int64_t offset = 0;
  for (int i = 0; i < c.inputs(); ++i) {
    const int64_t part = length(c.input(i).shape());
    RunConcatPart(AroundAxis(y.shape(), axis).outer, part, ElementBytes(y), length(y.shape()),
                  offset, c.input(i).data, y.data, device.stream());
    offset += part;
  }
}

void GatherOf(const KernelContext& c, CudaDevice& device) {
  const TensorView& x = c.input(0);
  uint32_t missing = 0;
  FillMissing(x.type.dtype, 1, &missing);
  RunGather(AroundAxis(x.shape(), c.attributes().Int("axis")), c.input(1).elements(),
            c.input(1).as<int32_t>(), ElementBytes(x), missing, x.data, c.output(0).data,
            device.stream());
}

void GatherGradOf(const KernelContext& c, CudaDevice& device) {
  RunGatherGrad(AroundAxis(c.output(0).shape(), c.attributes().Int("axis")), c.input(1).elements(),
                c.input(1).as<int32_t>(), c.input(0).as<float>(), c.output(0).as<float>(),
                device.stream());
}

void FillOf(const KernelContext& c, CudaDevice& device) {
  RunFill(c.output(0).elements(), static_cast<float>(c.attributes().Float("value")),
          c.output(0).as<float>(), device.stream());
}

void PositionsOf(const KernelContext& c, CudaDevice& device) {
  RunPositions(c.output(0).elements(), static_cast<int32_t>(c.attributes().Int("offset")),
               c.output(0).as<int32_t>(), device.stream());
}

}  // namespace

std::vector<KernelEntry> MovementKernels() {
  std::vector<KernelEntry> entries = {
      Own<SliceGradOf>("slice_grad"),
      Own<GatherGradOf>("gather_grad"),
      Own<ExpandOf>("expand"),
      Own<BroadcastToOf>("broadcast_to"),
      Own<FillOf>("fill"),
      Own<PositionsOf>("positions", DType::kI32),
  };
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
    entries.push_back(Own<ConcatOf>("concat", dtype));
    entries.push_back(Own<GatherOf>("gather", dtype));
    entries.push_back(Own<ReshapeOf>("reshape", dtype));
    entries.push_back(Own<SliceOf>("slice", dtype));
    entries.push_back(Own<TransposeOf>("transpose", dtype));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
