#include "runtime/kernels/cpu/conv_shape.h"
#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/reference_int8.h"

namespace lepton::kernels::reference {
namespace {

// function(index in x, index in weights, index in y) for every product of a convolution.
template <typename Function>
void ForProducts(const ConvShape& s, Function function) {
  const int64_t group_in = s.in_channels / s.groups;
  const int64_t group_out = s.out_channels / s.groups;
  const ops::WindowAxis& wh = s.window.h;
  const ops::WindowAxis& ww = s.window.w;
  int64_t y = 0;
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t out = 0; out < s.out_channels; ++out) {
      for (int64_t row = 0; row < s.out_h; ++row) {
        for (int64_t column = 0; column < s.out_w; ++column, ++y) {
          int64_t weight = out * group_in * wh.extent * ww.extent;
          for (int64_t c = 0; c < group_in; ++c) {
            const int64_t channel = image * s.in_channels + out / group_out * group_in + c;
            for (int64_t i = 0; i < wh.extent; ++i) {
              for (int64_t j = 0; j < ww.extent; ++j, ++weight) {
                const int64_t h = row * wh.stride + i * wh.dilation - wh.before;
                const int64_t w = column * ww.stride + j * ww.dilation - ww.before;
                if (h < 0 || h >= s.in_h || w < 0 || w >= s.in_w) continue;
                function((channel * s.in_h + h) * s.in_w + w, weight, y);
              }
            }
          }
        }
      }
    }
  }
}

void Write(const std::vector<double>& sums, const TensorView& to) {
  for (size_t i = 0; i < sums.size(); ++i) to.as<float>()[i] = static_cast<float>(sums[i]);
}

}  // namespace

void Conv2dInt8(const KernelContext& context) {
  const float* x = context.input(0).as<float>();
  const float* weights = context.input(1).as<float>();
  const ConvShape shape(context.input(0).shape(), context.input(1).shape(), context.attributes());
  const int64_t of_image = shape.x_elements();
  const int64_t of_channel = shape.weight_elements() / shape.out_channels;
  std::vector<float> image_scales, channel_scales;
  std::vector<int32_t> images, channels, some;
  for (int64_t image = 0; image < shape.images; ++image) {
    image_scales.push_back(QuantizeInt8(
        of_image, [&](int64_t i) { return x[image * of_image + i]; }, some));
    images.insert(images.end(), some.begin(), some.end());
  }
  for (int64_t out = 0; out < shape.out_channels; ++out) {
    channel_scales.push_back(QuantizeInt8(
        of_channel, [&](int64_t i) { return weights[out * of_channel + i]; }, some));
    channels.insert(channels.end(), some.begin(), some.end());
  }
  std::vector<int32_t> sums(context.output(0).elements());
  ForProducts(shape, [&](int64_t in, int64_t weight, int64_t out) {
    sums[out] += images[in] * channels[weight];
  });
  const int64_t pixels = shape.out_h * shape.out_w;
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t plane = static_cast<int64_t>(i) / pixels;
    context.output(0).as<float>()[i] =
        static_cast<float>(sums[i]) *
        (image_scales[plane / shape.out_channels] * channel_scales[plane % shape.out_channels]);
  }
}

void Conv2d(const KernelContext& context) {
  const float* x = context.input(0).as<float>();
  const float* weights = context.input(1).as<float>();
  std::vector<double> y(context.output(0).elements());
  const ConvShape shape(context.input(0).shape(), context.input(1).shape(), context.attributes());
  ForProducts(shape, [&](int64_t in, int64_t weight, int64_t out) {
    y[out] += double{x[in]} * weights[weight];
  });
  Write(y, context.output(0));
}

void Conv2dInputGrad(const KernelContext& context) {
  const float* dy = context.input(0).as<float>();
  const float* weights = context.input(1).as<float>();
  std::vector<double> dx(context.output(0).elements());
  const ConvShape shape(context.input(2).shape(), context.input(1).shape(), context.attributes());
  ForProducts(shape, [&](int64_t in, int64_t weight, int64_t out) {
    dx[in] += double{dy[out]} * weights[weight];
  });
  Write(dx, context.output(0));
}

void Conv2dWeightGrad(const KernelContext& context) {
  const float* dy = context.input(0).as<float>();
  const float* x = context.input(1).as<float>();
  std::vector<double> dweights(context.output(0).elements());
  const ConvShape shape(context.input(1).shape(), context.input(2).shape(), context.attributes());
  ForProducts(shape, [&](int64_t in, int64_t weight, int64_t out) {
    dweights[weight] += double{dy[out]} * x[in];
  });
  Write(dweights, context.output(0));
}

}  // namespace lepton::kernels::reference
