// One pair of functions per file format, behind Decode and ReadInfo. Private to this folder.
// Threads: pure functions.
#pragma once

#include "runtime/formats/image/image.h"

namespace lepton::image {

bool IsPng(std::string_view bytes);
bool IsJpeg(std::string_view bytes);

// Sizes are not yet checked against limits.
Result<Info> ReadPngInfo(std::string_view bytes);
Result<Info> ReadJpegInfo(std::string_view bytes);

// All of the picture into `pixels`, [height, width, channels] of `info`, as ReadXInfo gave it.
Status DecodePng(std::string_view bytes, const Info& info, uint8_t* pixels);
Status DecodeJpeg(std::string_view bytes, const Info& info, uint8_t* pixels);

}  // namespace lepton::image
