// libpng reports errors by longjmp: between setjmp and the last call into the library there are
// plain values only, and what owns memory lives outside.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <string>

#include "runtime/formats/image/decoders.h"

namespace lepton::image {
namespace {

struct PngReader {
  explicit PngReader(std::string_view bytes) : at(bytes.data()), left(bytes.size()) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, OnWarning);
    if (png == nullptr) return;
    info = png_create_info_struct(png);
    png_set_read_fn(png, this, OnRead);
    // Chunks beside the picture are not needed; none may ask for much memory.
    png_set_chunk_malloc_max(png, 8 << 20);
  }
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }

  static void OnError(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(self->message, message, sizeof(self->message) - 1);
    std::longjmp(self->jump, 1);
  }
  static void OnWarning(png_structp, png_const_charp) {}
  static void OnRead(png_structp png, png_bytep out, size_t size) {
    auto* self = static_cast<PngReader*>(png_get_io_ptr(png));
    if (size > self->left) png_error(png, "the file is cut short");
    std::memcpy(out, self->at, size);
    self->at += size;
    self->left -= size;
  }
  Status Error() const { return InvalidArgument(std::string("damaged PNG: ") + message); }

  png_structp png = nullptr;
  png_infop info = nullptr;
  const char* at;
  size_t left;
  std::jmp_buf jump;
  char message[128] = "";
};

// Asks for 8 bits a sample, grey or RGB, without alpha.
void SetTransforms(png_structp png, png_infop info) {
  const int type = png_get_color_type(png, info);
  const int depth = png_get_bit_depth(png, info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (type == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (depth == 16) png_set_strip_16(png);
  png_set_strip_alpha(png);
}

}  // namespace

bool IsPng(std::string_view bytes) {
  return bytes.size() >= 8 &&
         png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, 8) == 0;
}

Result<Info> ReadPngInfo(std::string_view bytes) {
  PngReader reader(bytes);
  if (reader.info == nullptr) return ResourceExhausted("out of memory");
  if (setjmp(reader.jump) != 0) return reader.Error();
  png_read_info(reader.png, reader.info);
  const int type = png_get_color_type(reader.png, reader.info);
  const bool grey = type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_GRAY_ALPHA;
  return Info{png_get_image_width(reader.png, reader.info),
              png_get_image_height(reader.png, reader.info), grey ? 1 : 3};
}

Status DecodePng(std::string_view bytes, const Info& info, uint8_t* pixels) {
  PngReader reader(bytes);
  std::vector<png_bytep> rows(info.height);
  for (int64_t y = 0; y < info.height; ++y) rows[y] = pixels + y * info.width * info.channels;
  if (reader.info == nullptr) return ResourceExhausted("out of memory");
  if (setjmp(reader.jump) != 0) return reader.Error();
  png_read_info(reader.png, reader.info);
  SetTransforms(reader.png, reader.info);
  png_read_update_info(reader.png, reader.info);
  if (png_get_rowbytes(reader.png, reader.info) !=
      static_cast<size_t>(info.width * info.channels)) {
    png_error(reader.png, "rows of an unexpected size");
  }
  png_read_image(reader.png, rows.data());
  png_read_end(reader.png, nullptr);
  return Status::Ok();
}

}  // namespace lepton::image
