// A forward graph of this engine as an ONNX model that other programs run: operator set 17, weights
// inside or in a second file, open extents as named dimensions ("batch", "sequence").
// Threads: pure functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::onnx {

inline constexpr int64_t kExportedOperatorSet = 17;

// What of a graph is to leave. Borrows everything.
struct ExportRequest {
  struct Output {
    std::string name;
    graph::ValueId value = graph::kNoValue;
  };
  // x = (raw - mean) / scale, NaN (missing) taken for mean: raw numbers go into the exported model.
  struct Normalization {
    std::string input;  // f32 [batch, features], or [batch, channels, height, width] by channel
    std::vector<float> mean, scale;
  };

  const graph::Graph* graph = nullptr;
  std::vector<Output> outputs;
  std::map<graph::ValueId, TensorView> weights;  // one per parameter that the outputs need
  std::optional<Normalization> normalize;
  std::map<std::string, std::string> metadata;
  // Weights of more bytes in all leave through a second file of that name, in the model's folder.
  int64_t inline_bytes = int64_t{1} << 30;
  std::string data_file = "model.onnx.data";
};

struct ExportedModel {
  std::string model;  // the ModelProto
  std::string data;   // the second file; empty when all weights are inside
};

// Inputs keep their names and types, but for token ids and masks, which take the form that others
// use for them: "tokens" i32 leaves as "input_ids" i64, "token_types" as "token_type_ids", and the
// additive "mask" as "attention_mask" i64, 1 for a token and 0 for padding.
// kFailedPrecondition names a node whose op has no form in ONNX; kInvalidArgument: a parameter
// without a weight.
Result<ExportedModel> Export(const ExportRequest& request);

// Every op of the forward pass is in this list, with an exporter or with the reason why not.
struct ExportSupport {
  std::string_view op;
  std::string_view reason;  // empty: it is exported
};
std::vector<ExportSupport> ExportedOps();

}  // namespace lepton::onnx
