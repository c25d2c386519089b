// preprocessor_config.json of a folder's image model: how pictures become its input.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::huggingface {

// x = (raw - mean) / scale for each channel, with raw from 0 to 1. A picture is resampled
// bilinearly, whatever filter the file names.
struct ImagePreparation {
  int64_t height = 0, width = 0;
  std::string fit = "stretch";  // stretch: both sides as they are; crop: the shorter one, then the
                                // middle
  std::vector<double> mean, scale;
};

// kInvalidArgument: "preprocessor_config.json: size: ...".
Result<ImagePreparation> ParsePreprocessor(std::string_view json, int64_t channels);

// The file for a model of ours.
std::string WritePreprocessor(const ImagePreparation& preparation);

}  // namespace lepton::huggingface
