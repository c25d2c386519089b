// The Open Inference Protocol v2 (github.com/kserve/open-inference-protocol): raw inputs in,
// several outputs out; JSON, or JSON followed by raw bytes (the binary tensor extension).
//
// Inputs, by the model's kind:
//   features  "x" [rows, features]: unnormalised
//   images    "pixels" [rows, channels, height, width]: unnormalised; of files from 0 to 1
//   texts     "text" BYTES [rows], and "text_pair" BYTES [rows] for a model of pairs
// Outputs of a classifier: "logits" FP32 [rows, outputs], "probabilities" FP32 [rows, classes],
// "class" INT64 [rows], "label" BYTES [rows]. Of a regression: "logits" and "value", the same
// numbers, FP32 [rows, outputs].
// JSON numbers are taken in double precision whatever the datatype says; null, and NaN in binary
// data, mean a missing value.
// Threads: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/http/http.h"
#include "worker/infer/model_rows.h"
#include "worker/infer/served_model.h"

namespace lepton::worker {

struct InferRequest {
  struct Output {
    std::string name;
    bool binary = false;
  };
  std::string id;
  ModelRows rows;
  std::vector<Output> outputs;
};

// `json_bytes`: the Inference-Header-Content-Length header, if there is one. kInvalidArgument names
// the part of the request that is wrong, what was found and what is allowed.
Result<InferRequest> ParseInferRequest(const ServedModel& model, std::string_view body,
                                       std::optional<size_t> json_bytes);

// `logits`: [rows, outputs].
http::Response EncodeInferResponse(const ServedModel& model, const InferRequest& request,
                                   const std::vector<float>& logits);

// GET /v2/models/{m}
std::string ModelMetadata(const ServedModel& model);

}  // namespace lepton::worker
