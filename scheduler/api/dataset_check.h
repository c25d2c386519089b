// Whether a dataset can do what a spec asks of it, and whether a model fits the dataset.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "storage/datasets/dataset_manifest.h"
#include "storage/models/model_manifest.h"

namespace lepton::api {

struct DatasetFacts {
  // What a model takes of it: "features", "images" or "tokens".
  std::string input = "features";
  // Of a stream of tokens, windows of the context; of one of text, bytes for tokenizer bytes, else
  // 0: not known before it is tokenised.
  int64_t rows = 0, train_rows = 0, validation_rows = 0, test_rows = 0;
  std::vector<std::string> features;  // columns of numbers: every one but the label, in order
  std::vector<std::string> classes;   // of the label; empty for other losses
  int64_t channels = 0, height = 0, width = 0;  // of images; 0: the model's, or the pictures' own
};

// With `like` (model.from), only that model's features matter; the dataset may have other columns.
// A batch prediction asks for no label.
Result<DatasetFacts> CheckDataset(const storage::DatasetManifest& dataset,
                                  const spec::JobSpec& spec,
                                  const storage::ModelManifest* like = nullptr);

// `field` is model.from or teacher. The model's features must be columns of the dataset; a
// teacher must have the dataset's very classes, model.from at least those.
Status CheckModelFits(std::string_view field, const std::string& name,
                      const storage::ModelManifest& model, const DatasetFacts& facts,
                      const spec::JobSpec& spec);

}  // namespace lepton::api
