// A convolution's node as arguments of device code. Threads: pure functions.
#pragma once

#include "runtime/kernels/cpu/conv_shape.h"
#include "runtime/kernels/cuda/device/images.h"

namespace lepton::kernels::cuda {

inline WindowAxisArguments AxisOf(const ops::WindowAxis& axis, int64_t in) {
  return {axis.extent, axis.stride, axis.dilation, axis.before, in, axis.Outputs(in)};
}

// Without memory. Which shapes are x's and the weights' depends on the op.
inline ConvArguments ConvArgumentsOf(const Shape& x, const Shape& weights,
                                     const graph::Attributes& attributes) {
  const ConvShape shape(x, weights, attributes);
  ConvArguments a;
  a.images = shape.images;
  a.in_channels = shape.in_channels;
  a.out_channels = shape.out_channels;
  a.groups = shape.groups;
  a.h = AxisOf(shape.window.h, shape.in_h);
  a.w = AxisOf(shape.window.w, shape.in_w);
  return a;
}

// The same of a request: conv2d(x, weights), conv2d_input_grad(dy, weights) -> dx,
// conv2d_weight_grad(dy, x) -> dweights.
inline ConvArguments ConvArgumentsOf(const graph::KernelRequest& request) {
  const auto& in = request.inputs;
  const Shape& out = request.outputs[0].shape;
  const bool dx = request.op == "conv2d_input_grad", dw = request.op == "conv2d_weight_grad";
  ConvArguments a = ConvArgumentsOf(dx   ? out
                                    : dw ? in[1].shape
                                         : in[0].shape,
                                    dw ? out : in[1].shape, *request.attributes);
  a.bf16 = in[0].dtype == DType::kBF16;
  return a;
}

}  // namespace lepton::kernels::cuda
