// Separable: all rows first, then all columns, each output sample a weighted mean of the inputs
// under a triangle whose half width is the shrinking factor (at least one pixel), or a cubic curve
// (Keys, a = -1/2) of twice that. Weights are rounded to 22 bits and sums to the nearest integer,
// as in Pillow's Resample.c.
#include <algorithm>
#include <cmath>

#include "runtime/formats/image/image.h"

namespace lepton::image {
namespace {

constexpr int kPrecision = 32 - 8 - 2;

struct Filter {
  std::vector<int64_t> first;    // input sample with the first weight, by output sample
  std::vector<int64_t> count;    // weights of it
  std::vector<int32_t> weights;  // [outputs, width]
  int64_t width = 0;
};

// At a distance from the middle, in widened pixels.
double Weight(Resampling resampling, double distance) {
  const double x = std::abs(distance);
  if (resampling == Resampling::kBilinear) return std::max(0.0, 1 - x);
  constexpr double a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Output sample i of `outputs` covers [begin, end) of an axis of `inputs` samples.
Filter MakeFilter(int64_t inputs, double begin, double end, int64_t outputs,
                  Resampling resampling) {
  const double scale = (end - begin) / static_cast<double>(outputs);
  const double widened = std::max(scale, 1.0);
  const double support = resampling == Resampling::kBicubic ? 2 * widened : widened;
  Filter filter;
  filter.width = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  filter.weights.assign(outputs * filter.width, 0);
  std::vector<double> weights(filter.width);
  for (int64_t i = 0; i < outputs; ++i) {
    const double centre = begin + (static_cast<double>(i) + 0.5) * scale;
    const int64_t low = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const int64_t high = std::min(inputs, static_cast<int64_t>(centre + support + 0.5));
    double sum = 0;
    for (int64_t x = low; x < high; ++x) {
      weights[x - low] = Weight(resampling, (static_cast<double>(x) - centre + 0.5) / widened);
      sum += weights[x - low];
    }
    for (int64_t x = low; x < high; ++x) {
      const double weight = sum > 0 ? weights[x - low] / sum : 0;
      filter.weights[i * filter.width + x - low] =
          static_cast<int32_t>(weight * (1 << kPrecision) + (weight < 0 ? -0.5 : 0.5));
    }
    filter.first.push_back(low);
    filter.count.push_back(high - low);
  }
  return filter;
}

uint8_t Round(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
}

Image ResizeRows(const Image& in, const Filter& filter, int64_t width) {
  Image out{width, in.height, in.channels, {}};
  out.pixels.resize(width * in.height * in.channels);
  for (int64_t y = 0; y < in.height; ++y) {
    const uint8_t* row = &in.pixels[y * in.width * in.channels];
    uint8_t* to = &out.pixels[y * width * in.channels];
    for (int64_t x = 0; x < width; ++x) {
      const int32_t* weights = &filter.weights[x * filter.width];
      for (int64_t c = 0; c < in.channels; ++c) {
        const uint8_t* from = row + filter.first[x] * in.channels + c;
        int32_t sum = 1 << (kPrecision - 1);
        for (int64_t k = 0; k < filter.count[x]; ++k) sum += from[k * in.channels] * weights[k];
        *to++ = Round(sum);
      }
    }
  }
  return out;
}

Image ResizeColumns(const Image& in, const Filter& filter, int64_t height) {
  Image out{in.width, height, in.channels, {}};
  const int64_t row = in.width * in.channels;
  out.pixels.resize(row * height);
  std::vector<int32_t> sums(row);
  for (int64_t y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    for (int64_t k = 0; k < filter.count[y]; ++k) {
      const uint8_t* from = &in.pixels[(filter.first[y] + k) * row];
      const int32_t weight = filter.weights[y * filter.width + k];
      for (int64_t i = 0; i < row; ++i) sums[i] += from[i] * weight;
    }
    for (int64_t i = 0; i < row; ++i) out.pixels[y * row + i] = Round(sums[i]);
  }
  return out;
}

}  // namespace

Box CentredBox(const Image& image, int64_t width, int64_t height) {
  const double w = static_cast<double>(image.width), h = static_cast<double>(image.height);
  const double scale = std::min(w / static_cast<double>(width), h / static_cast<double>(height));
  const double box_w = scale * static_cast<double>(width);
  const double box_h = scale * static_cast<double>(height);
  return {(w - box_w) / 2, (h - box_h) / 2, (w + box_w) / 2, (h + box_h) / 2};
}

Box MiddleBox(const Image& image, int64_t width, int64_t height, int64_t edge) {
  const int64_t shorter = std::min(image.width, image.height);
  const auto resized = [&](int64_t side) { return edge * side / shorter; };
  const int64_t w = resized(image.width), h = resized(image.height);
  const int64_t left = (w - width) / 2, top = (h - height) / 2;
  const double x = static_cast<double>(image.width) / static_cast<double>(w);
  const double y = static_cast<double>(image.height) / static_cast<double>(h);
  return {static_cast<double>(left) * x, static_cast<double>(top) * y,
          static_cast<double>(left + width) * x, static_cast<double>(top + height) * y};
}

Image Resize(const Image& image, int64_t width, int64_t height, const Box& box,
             Resampling resampling) {
  const bool rows = width != image.width || box.left != 0 || box.right != double(image.width);
  const bool columns = height != image.height || box.top != 0 || box.bottom != double(image.height);
  if (!rows && !columns) return image;
  const auto filter = [&](int64_t inputs, double begin, double end, int64_t outputs) {
    return MakeFilter(inputs, begin, end, outputs, resampling);
  };
  const Image between =
      rows ? ResizeRows(image, filter(image.width, box.left, box.right, width), width) : image;
  if (!columns) return between;
  return ResizeColumns(between, filter(image.height, box.top, box.bottom, height), height);
}

Image Resize(const Image& image, int64_t width, int64_t height) {
  return Resize(image, width, height,
                {0, 0, static_cast<double>(image.width), static_cast<double>(image.height)});
}

}  // namespace lepton::image
