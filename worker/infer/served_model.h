// What the protocols need to know of the model that a replica serves.
#pragma once

#include <string>
#include <vector>

#include "storage/models/model_manifest.h"
#include "worker/data/text_encoder.h"

namespace lepton::worker {

struct ServedModel {
  std::string deployment;                            // "digits-live"
  std::string name;                                  // "digits"
  std::string version;                               // "2"
  const storage::ModelManifest* manifest = nullptr;  // borrowed
  int64_t outputs = 0;                               // of logits
  int64_t numbers = 0;                               // of a row; 0 for texts
  const TextEncoder* encoder = nullptr;              // borrowed; of texts

  bool takes_texts() const { return manifest->input.kind == "tokens"; }
  bool takes_images() const { return manifest->input.kind == "images"; }
  // Pictures that were trained on as files, not as columns.
  bool takes_files() const { return takes_images() && manifest->feature_names.empty(); }
  bool takes_pairs() const { return !manifest->input.text_pair.empty(); }
  bool classifies() const { return manifest->loss != "mse"; }
  // Columns of "probabilities".
  int64_t classes() const { return manifest->loss == "binary_cross_entropy" ? 2 : outputs; }
};

}  // namespace lepton::worker
