// Texts and pictures of requests as rows of the model.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "worker/infer/model_rows.h"
#include "worker/infer/served_model.h"

namespace lepton::worker {

// Texts, or pairs of as many, cut at the model's context. kInvalidArgument names the row of a text
// that is not UTF-8; kFailedPrecondition when the model's tokenizer is not known.
Status EncodeTexts(const ServedModel& model, const std::vector<std::string>& texts,
                   const std::vector<std::string>* pairs, ModelRows* rows);

// The pixels of a PNG or JPEG in base64 behind those of `rows`, on the scale from 0 to 1.
Status DecodePicture(const ServedModel& model, const std::string& path, std::string_view base64,
                     std::vector<double>* pixels);

}  // namespace lepton::worker
