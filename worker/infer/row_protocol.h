// POST /v1/deployments/{name}:predict: rows by column name in, labels and probabilities out.
//   {"rows": [{"width": 1.5, "height": null}, ...]}
//   {"predictions": [{"label": "3", "probability": 0.99, "probabilities": {"3": 0.99, ...}}, ...],
//    "model": "digits@2"}            a regression: {"predictions": [{"value": 1.25}], ...}
// null means a missing value; a column that is not there, or one too many, is an error. A model of
// texts takes its text columns ({"text": "..."} where it has none of its own), one of picture files
// {"image": "<PNG or JPEG in base64>"}.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "worker/infer/model_rows.h"
#include "worker/infer/served_model.h"

namespace lepton::worker {

// kInvalidArgument names the row and the column, and for an unknown one the nearest known.
Result<ModelRows> ParseRows(const ServedModel& model, std::string_view body);
std::string EncodePredictions(const ServedModel& model, int64_t rows,
                              const std::vector<float>& logits);

}  // namespace lepton::worker
