// Stored models from ONNX files, and stored models as ONNX files.
// Threads: pure functions of the store's content. They block on the disk.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/formats/onnx/export.h"
#include "runtime/formats/onnx/external_data.h"
#include "storage/models/model_manifest.h"
#include "worker/train/model_files.h"

namespace lepton::worker {

// What a file does not say of itself. What is empty comes from the metadata of models that Lepton
// exported, else names are made up: "x.0", "x.1"... for features, "0", "1"... for classes.
struct OnnxNames {
  std::vector<std::string> features;
  std::vector<std::string> classes;
  std::string label;
  std::string loss;  // default: cross_entropy of several outputs, mse of one
  // The metadata comes first; and of what does not train, classes count only where their number is
  // the model's.
  bool weak = false;
  bool trains = false;  // a model that cannot be trained is refused (kFailedPrecondition)
};

struct StoredOnnx {
  storage::Digest manifest;
  std::vector<storage::Digest> objects;  // all of them, the manifest included
  storage::ModelManifest content;
};
// Checks that every node of the model can be computed with an open batch, and stores graph, weights
// and manifest. `external`: where its external data may be. kInvalidArgument: not a sound
// model, or names that do not fit it; kFailedPrecondition names what is not supported.
Result<StoredOnnx> ImportOnnx(storage::ObjectStore& objects, std::string_view bytes,
                              const onnx::ExternalData& external, const OnnxNames& names = {});

// Raw features, pictures of numbers from 0 to 1, or token ids in, logits out. Weights of more than
// `inline_bytes` go to a second file. kFailedPrecondition names what has no form in ONNX.
Result<onnx::ExportedModel> ExportOnnx(const storage::ObjectStore& objects,
                                       const storage::Digest& manifest,
                                       int64_t inline_bytes = int64_t{1} << 30,
                                       const std::string& data_file = "model.onnx.data");

}  // namespace lepton::worker
