// An ONNX model as Lepton stores it: the graph without its weights, and the weights by name, which
// training changes and safetensors holds. Threads: pure functions, but for reading external data.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/formats/onnx/export.h"
#include "runtime/formats/onnx/parse.h"

namespace lepton::onnx {

struct NamedTensor {
  std::string name;
  HostTensor tensor;
};

struct TakenApart {
  std::string graph;                 // a ModelProto whose weights are external data in kWeightsFile
  std::vector<NamedTensor> weights;  // f32, in the order of the graph
  std::map<std::string, std::string> metadata;
  // The preparation of the one input that a model begins with, as our exporter writes it; taken out
  // of the graph, since the data is prepared where it is read.
  std::optional<ExportRequest::Normalization> normalize;
};

// A weight is an initializer of f32 with at least one axis that is used nowhere but where layers
// have their weights, biases and tables; running statistics, numbers and shapes stay in the graph.
// External data is read into the graph or the weights. Initializers that nothing uses are left out.
Result<TakenApart> TakeApart(std::string_view bytes, const ExternalData& external,
                             const Limits& limits = {});

struct PutTogetherOptions {
  // As ExportRequest::normalize, for the model's one input; the name in it does not count.
  std::optional<ExportRequest::Normalization> normalize;
  std::map<std::string, std::string> metadata;  // besides what the graph has
  int64_t inline_bytes = int64_t{1} << 30;
  std::string data_file = "model.onnx.data";
};
// The whole model again, with other weights of the same names and types. kInvalidArgument names one
// that is missing or does not fit; kFailedPrecondition: normalisation of several inputs.
Result<ExportedModel> PutTogether(std::string_view graph,
                                  const std::map<std::string, TensorView>& weights,
                                  const PutTogetherOptions& options = {});

}  // namespace lepton::onnx
