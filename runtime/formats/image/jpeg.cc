// libjpeg reports errors by a callback that must not return, and fills what is missing of a cut
// file with grey after a warning. Both become errors here. As in png.cc, nothing that owns memory
// lives between setjmp and the last call.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>

#include <jpeglib.h>
// jpeglib.h first: jerror.h needs its types.
#include <jerror.h>

#include "runtime/formats/image/decoders.h"

namespace lepton::image {
namespace {

struct JpegReader {
  explicit JpegReader(std::string_view bytes) {
    std::memset(&decoder, 0, sizeof(decoder));
    decoder.err = jpeg_std_error(&errors);
    decoder.client_data = this;
    errors.error_exit = OnError;
    errors.emit_message = OnMessage;
    errors.output_message = [](j_common_ptr) {};
    source = bytes;
  }
  ~JpegReader() {
    if (created) jpeg_destroy_decompress(&decoder);
  }

  // Under the caller's setjmp.
  void Open() {
    jpeg_create_decompress(&decoder);
    created = true;
    jpeg_mem_src(&decoder, reinterpret_cast<const unsigned char*>(source.data()), source.size());
    jpeg_read_header(&decoder, TRUE);
  }

  static void OnError(j_common_ptr common) {
    auto* self = static_cast<JpegReader*>(common->client_data);
    (*common->err->format_message)(common, self->message);
    std::longjmp(self->jump, 1);
  }
  // Level -1: the data is damaged and the library makes something up. Stray bytes between markers
  // are common and harmless.
  static void OnMessage(j_common_ptr common, int level) {
    if (level >= 0 || common->err->msg_code == JWRN_EXTRANEOUS_DATA) return;
    OnError(common);
  }
  Status Error() const { return InvalidArgument(std::string("damaged JPEG: ") + message); }

  jpeg_decompress_struct decoder;
  jpeg_error_mgr errors;
  std::string_view source;
  bool created = false;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
};

}  // namespace

bool IsJpeg(std::string_view bytes) {
  return bytes.starts_with("\xFF\xD8\xFF");
}

Result<Info> ReadJpegInfo(std::string_view bytes) {
  JpegReader reader(bytes);
  if (setjmp(reader.jump) != 0) return reader.Error();
  reader.Open();
  const J_COLOR_SPACE space = reader.decoder.jpeg_color_space;
  if (space != JCS_GRAYSCALE && space != JCS_YCbCr && space != JCS_RGB) {
    return InvalidArgument("a JPEG in CMYK or unknown colours: save it as RGB");
  }
  return Info{reader.decoder.image_width, reader.decoder.image_height,
              space == JCS_GRAYSCALE ? 1 : 3};
}

Status DecodeJpeg(std::string_view bytes, const Info& info, uint8_t* pixels) {
  JpegReader reader(bytes);
  if (setjmp(reader.jump) != 0) return reader.Error();
  reader.Open();
  reader.decoder.out_color_space = info.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  reader.decoder.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&reader.decoder);
  while (reader.decoder.output_scanline < reader.decoder.output_height) {
    JSAMPROW row = pixels + int64_t{reader.decoder.output_scanline} * info.width * info.channels;
    jpeg_read_scanlines(&reader.decoder, &row, 1);
  }
  jpeg_finish_decompress(&reader.decoder);
  return Status::Ok();
}

}  // namespace lepton::image
