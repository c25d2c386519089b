#include "runtime/formats/image/image.h"

#include <string>

#include "runtime/formats/image/decoders.h"

namespace lepton::image {
namespace {

Status CheckSize(const Info& info, const Limits& limits) {
  const std::string size = std::to_string(info.width) + " x " + std::to_string(info.height);
  if (info.width < 1 || info.height < 1) return InvalidArgument("the picture is empty: " + size);
  if (info.width > limits.max_side || info.height > limits.max_side ||
      info.width > limits.max_pixels / info.height) {
    return InvalidArgument("the picture is " + size + " pixels; the limits are " +
                           std::to_string(limits.max_side) + " a side and " +
                           std::to_string(limits.max_pixels) + " in all: make it smaller");
  }
  return Status::Ok();
}

// ITU-R BT.601 luma in 16-bit fixed point.
uint8_t Luminance(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

void ToGrey(Image* image) {
  for (int64_t i = 0; i < image->width * image->height; ++i) {
    image->pixels[i] = Luminance(&image->pixels[3 * i]);
  }
  image->channels = 1;
  image->pixels.resize(image->width * image->height);
}

void ToColour(Image* image) {
  image->channels = 3;
  const int64_t pixels = image->width * image->height;
  image->pixels.resize(3 * pixels);
  for (int64_t i = pixels - 1; i >= 0; --i) {  // from the end: in place
    const uint8_t grey = image->pixels[i];
    for (int c = 0; c < 3; ++c) image->pixels[3 * i + c] = grey;
  }
}

}  // namespace

Result<Info> ReadInfo(std::string_view bytes, const Limits& limits) {
  Result<Info> info = IsPng(bytes)    ? ReadPngInfo(bytes)
                      : IsJpeg(bytes) ? ReadJpegInfo(bytes)
                                      : InvalidArgument("neither a PNG nor a JPEG file");
  if (info.ok()) LEPTON_RETURN_IF_ERROR(CheckSize(*info, limits));
  return info;
}

Result<Image> Decode(std::string_view bytes, int64_t channels, const Limits& limits) {
  if (channels != 1 && channels != 3) return InvalidArgument("channels: must be 1 or 3");
  LEPTON_ASSIGN_OR_RETURN(const Info info, ReadInfo(bytes, limits));
  Image image{info.width, info.height, info.channels, {}};
  image.pixels.resize(info.width * info.height * info.channels);
  LEPTON_RETURN_IF_ERROR(IsPng(bytes) ? DecodePng(bytes, info, image.pixels.data())
                                      : DecodeJpeg(bytes, info, image.pixels.data()));
  if (channels == 1 && image.channels == 3) ToGrey(&image);
  if (channels == 3 && image.channels == 1) ToColour(&image);
  return image;
}

}  // namespace lepton::image
