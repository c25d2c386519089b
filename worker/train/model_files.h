// Models between the object store and programs: a manifest object and a safetensors object with one
// tensor per parameter.
// Threads: plain functions and values.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/mapped_file.h"
#include "runtime/base/status.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/nn/training_program.h"
#include "runtime/nn/weights.h"
#include "runtime/spec/job_spec.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

// The manifest's file that holds the graph of a model of arch onnx.
inline constexpr const char* kOnnxGraphFile = "graph.onnx";

struct StoredModel {
  storage::ModelManifest manifest;
  spec::ModelSpec model;
  nn::SourceTensors tensors;  // by parameter name, where they lie in the mapped objects
  std::vector<std::shared_ptr<const MappedFile>> mapped;

  // Of the data that it was trained on. kInvalidArgument when that does not fit the architecture.
  Result<nn::Signature> signature() const;
};

// The weights are mapped, not read: they may be larger than memory. Those of small models are
// compared with the manifest's digest of them (kDataLoss), as all are when they arrive.
Result<StoredModel> LoadModel(const storage::ObjectStore& objects, const storage::Digest& manifest);

// The tensors with their types and names, in name order.
std::vector<safetensors::TensorView> WeightViews(const StoredModel& model);

// Weights that are not all in one object: the others are files of the manifest under these names.
std::string FurtherWeights(size_t index);  // 1, 2, ...
bool IsFurtherWeights(std::string_view file);
// safetensors::WeightsDigest over all of a manifest's weights; weights_sha256 is not looked at.
Result<std::string> DigestOfWeights(const storage::ObjectStore& objects,
                                    const storage::ModelManifest& manifest);

// Copies a model's weights into a program's. kInvalidArgument names the first parameter that is
// missing, superfluous or of another shape.
Status CopyWeights(const StoredModel& model, const std::vector<nn::ParameterView>& parameters,
                   std::span<float> weights);

// A program with the model's weights, for Forward and Evaluate, on `backend`'s device (which must
// outlive it) or, where it is null, on the host. kInvalidArgument when the weights are not those of
// the architecture.
Result<std::unique_ptr<nn::TrainingProgram>> BuildEvaluator(
    const StoredModel& model, const std::string& precision = "model",
    kernels::DeviceBackend* backend = nullptr);

struct WrittenModel {
  storage::Digest manifest;
  storage::Digest weights;
};
// Stores the weights, then the manifest with its `weights`, `weights_sha256` and `parameters`
// filled in. Durable on return.
Result<WrittenModel> WriteModel(storage::ObjectStore& objects, storage::ModelManifest manifest,
                                const std::vector<nn::ParameterView>& parameters,
                                std::span<const float> weights);

// The same of a program's weights, tensor by tensor, so that nobody holds them twice. Collective
// where they are with several ranks (TrainingProgram::VisitWeights): `objects` is null on those
// that only give theirs, which get no result.
Result<WrittenModel> WriteModel(storage::ObjectStore* objects, storage::ModelManifest manifest,
                                nn::TrainingProgram& program);

// The architecture as a manifest carries it, with all its sizes, and back.
std::string ModelSpecToText(const spec::ModelSpec& model);
Result<spec::ModelSpec> ModelSpecFromText(const std::string& text);

}  // namespace lepton::worker
