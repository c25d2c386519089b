// preprocessor_config.json of a folder's image model: how pictures become its input.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::huggingface {

// x = (raw - mean) / scale for each channel, with raw from 0 to 1, or what a table's cell says.
struct ImagePreparation {
  int64_t height = 0, width = 0;
  // stretch: both sides as they are; shortest: the shorter side becomes `edge`, then the middle;
  // crop: the largest middle part of the shape, which public processors do not have.
  std::string fit = "stretch";
  std::vector<double> mean, scale;
  int64_t edge = 0;
  std::string resample = "bilinear";  // or bicubic
  // Of a table whose cells are the pixels, as they are; none: pictures are files.
  std::vector<std::string> columns;
};

// What the processor that the file names would do; one that resizes or crops in another way is
// refused. kInvalidArgument: "preprocessor_config.json: size: ...".
Result<ImagePreparation> ParsePreprocessor(std::string_view json, int64_t channels);

// The file for a model of ours.
std::string WritePreprocessor(const ImagePreparation& preparation);

}  // namespace lepton::huggingface
