// A stored model ready to compute: what a replica serves and what an evaluation measures, so that
// both do the same arithmetic on the same rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

// x = (raw - mean) / scale by the training loop's NormalizeValue: NaN (missing) is taken for mean.
// `raw` and `x`: [rows, mean.size()], row-major.
void Normalize(std::span<const double> raw, std::span<const double> mean,
               std::span<const double> scale, std::span<float> x);

// What a row's logits say, by the manifest's loss.
struct Prediction {
  int64_t class_index = -1;          // -1 for mse
  std::string label;                 // classes[class_index]; "" for mse
  std::vector<float> probabilities;  // per class; two for binary_cross_entropy; empty for mse
};
// Softmax for cross_entropy (ties: the lowest index), sigmoid for binary_cross_entropy (class 1
// from 0.5 on).
Prediction Decode(const storage::ModelManifest& manifest, std::span<const float> logits);

// Threads: one caller at a time for Run, any for the rest. Owns manifest, weights and program.
class LoadedModel {
 public:
  // Reads the manifest object and the weights it names, and builds the program. `precision`: "" for
  // the manifest's own. kNotFound/kDataLoss for missing or damaged objects, kInvalidArgument for
  // weights that do not fit the architecture.
  static Result<std::unique_ptr<LoadedModel>> Load(const storage::ObjectStore& objects,
                                                   const storage::Digest& manifest,
                                                   const std::string& precision = "");

  const storage::ModelManifest& manifest() const { return manifest_; }
  int64_t features() const { return signature_.inputs.front().type.shape.back(); }
  int64_t outputs() const { return signature_.outputs; }

  // `raw`: [rows, features] unnormalised, NaN where missing; `logits`: [rows, outputs].
  Status Run(int64_t rows, std::span<const double> raw, std::span<float> logits);
  // The same from normalised rows.
  Status RunNormalized(int64_t rows, std::span<const float> x, std::span<float> logits);

 private:
  LoadedModel() = default;
  storage::ModelManifest manifest_;
  nn::Signature signature_;
  std::unique_ptr<nn::InferenceProgram> program_;
  std::vector<float> x_;  // scratch of Run
};

}  // namespace lepton::worker
