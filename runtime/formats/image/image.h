// PNG and JPEG files into 8-bit pixels, and pixels into another size. Decoders are libpng and
// libjpeg; what they say of a damaged file becomes an error, never a picture that is partly grey.
// Memory: what a picture needs, after its size was checked against the limits.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::image {

struct Info {
  int64_t width = 0, height = 0;
  int64_t channels = 0;  // as stored: 1 grey, 3 colour; alpha does not count
};

struct Limits {
  int64_t max_side = 16384;
  int64_t max_pixels = 64 << 20;
};

// [height, width, channels], row-major.
struct Image {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;
};

// What the header says. kInvalidArgument: neither PNG nor JPEG, a damaged header, a size over the
// limits, a JPEG in other colours than grey and YCbCr or RGB.
Result<Info> ReadInfo(std::string_view bytes, const Limits& limits = {});

// `channels`: 1 (luminance, ITU-R BT.601) or 3 (grey is repeated). 16-bit samples lose their low
// half, alpha is dropped, palettes are looked up; colour profiles, gamma and EXIF orientation are
// left alone. kInvalidArgument for a damaged or cut file too.
Result<Image> Decode(std::string_view bytes, int64_t channels, const Limits& limits = {});

// Part of a picture, in pixels.
struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
};
// The largest centred part of a picture with the shape of width x height.
Box CentredBox(const Image& image, int64_t width, int64_t height);

// The part that a centred width x height is of the picture after its shorter side became `edge`,
// which is not below either: the longer side and the place are whole pixels there, as torchvision
// and Hugging Face's processors have them.
Box MiddleBox(const Image& image, int64_t width, int64_t height, int64_t edge);

enum class Resampling : uint8_t { kBilinear, kBicubic };

// With a filter that widens when shrinking ("antialiased"), in the fixed-point arithmetic of
// Pillow's resize, so that pictures have the bits that models elsewhere were trained on.
Image Resize(const Image& image, int64_t width, int64_t height);
Image Resize(const Image& image, int64_t width, int64_t height, const Box& box,
             Resampling resampling = Resampling::kBilinear);

}  // namespace lepton::image
