// A small stored model, whose answers can be computed by hand, for the tests of worker/infer.
#pragma once

#include <string>

#include "runtime/base/file.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

struct TestModel {
  TempFolder folder;
  std::unique_ptr<storage::ObjectStore> objects;
  storage::ModelManifest manifest;
  storage::Digest digest;
};

// Three features "width", "height", "depth" with means 1, 2, 3 and scales 2, 4, 8. A linear layer
// without hidden ones:
//   cross_entropy         classes "ant", "bee", "cat"; logits = x (the identity)
//   binary_cross_entropy  classes "no", "yes"; logit = x0 + x1 + x2
//   mse                   value = x0 + x1 + x2 + 0.5
std::unique_ptr<TestModel> MakeTestModel(const std::string& loss);

}  // namespace lepton::worker
