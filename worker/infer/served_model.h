// What the protocols need to know of the model that a replica serves.
#pragma once

#include <string>
#include <vector>

#include "storage/models/model_manifest.h"

namespace lepton::worker {

struct ServedModel {
  std::string deployment;                            // "digits-live"
  std::string name;                                  // "digits"
  std::string version;                               // "2"
  const storage::ModelManifest* manifest = nullptr;  // borrowed
  int64_t outputs = 0;                               // of logits

  int64_t features() const { return static_cast<int64_t>(manifest->feature_names.size()); }
  bool classifies() const { return manifest->loss != "mse"; }
  // Columns of "probabilities".
  int64_t classes() const { return manifest->loss == "binary_cross_entropy" ? 2 : outputs; }
};

}  // namespace lepton::worker
