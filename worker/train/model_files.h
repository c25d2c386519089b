// Models between the object store and programs: a manifest object and a safetensors object with one
// tensor per parameter.
// Threads: plain functions and values.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

// The manifest's file that holds the graph of a model of arch onnx.
inline constexpr const char* kOnnxGraphFile = "graph.onnx";

struct StoredModel {
  storage::ModelManifest manifest;
  spec::ModelSpec model;
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors;  // by parameter name

  // Of the data that it was trained on. kInvalidArgument when that does not fit the architecture.
  Result<nn::Signature> signature() const;
};

// kDataLoss when the weights do not match the manifest's digest of them.
Result<StoredModel> LoadModel(const storage::ObjectStore& objects, const storage::Digest& manifest);

// Copies a model's weights into a program's. kInvalidArgument names the first parameter that is
// missing, superfluous or of another shape.
Status CopyWeights(const StoredModel& model, const std::vector<nn::ParameterView>& parameters,
                   std::span<float> weights);

// A program with the model's weights, for Forward and Evaluate. kInvalidArgument when the weights
// are not those of the architecture.
Result<std::unique_ptr<nn::TrainingProgram>> BuildEvaluator(const StoredModel& model);

struct WrittenModel {
  storage::Digest manifest;
  storage::Digest weights;
};
// Stores the weights, then the manifest with its `weights`, `weights_sha256` and `parameters`
// filled in. Durable on return.
Result<WrittenModel> WriteModel(storage::ObjectStore& objects, storage::ModelManifest manifest,
                                const std::vector<nn::ParameterView>& parameters,
                                std::span<const float> weights);

// The architecture as a manifest carries it, with all its sizes, and back.
std::string ModelSpecToText(const spec::ModelSpec& model);
Result<spec::ModelSpec> ModelSpecFromText(const std::string& text);

}  // namespace lepton::worker
