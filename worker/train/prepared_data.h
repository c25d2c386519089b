// A dataset version made ready to learn from: rows split, labels turned into classes or values,
// features normalised with the training rows' mean and deviation. A pure function of the dataset's
// bytes and the spec, so that every rank of a gang and every later evaluation sees the same rows.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "storage/datasets/dataset_manifest.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

// One part of the split, dense. `classes` is empty for mse; `values` is empty for cross_entropy and
// holds 0 or 1 for binary_cross_entropy.
struct DataPart {
  std::vector<int64_t> row_numbers;  // in the table
  std::vector<float> x;              // [rows, features]
  std::vector<int32_t> classes;
  std::vector<float> values;
  int64_t rows() const { return static_cast<int64_t>(row_numbers.size()); }
};

struct PreparedData {
  std::vector<std::string> feature_names;  // every column but the label, in table order
  std::vector<double> mean, scale;         // by feature; scale 1 for a constant column
  std::string label_name;
  std::vector<std::string> classes;  // class index -> label as text; empty for mse
  DataPart train, validation, test;

  int64_t features() const { return static_cast<int64_t>(feature_names.size()); }
  // Columns of the model's output: classes, or 1.
  int64_t outputs(const std::string& loss) const;
};

// With `like`, the features (by name), their normalisation and the classes are those of that model
// instead: for evaluation, teachers and fine-tuning. The dataset may then have further columns.
// kInvalidArgument, naming the field and the column or class, for data that does not fit the spec:
// no such label, text or infinite features, missing labels, a class without a training row (unless
// `like`), a class or feature that `like` does not have. kDataLoss for a corrupt table.
Result<PreparedData> PrepareData(const storage::DatasetManifest& manifest,
                                 const storage::Table& table, const spec::DatasetSpec& dataset,
                                 const std::string& loss,
                                 const storage::ModelManifest* like = nullptr);

// A dataset as stored.
struct StoredDataset {
  storage::DatasetManifest manifest;
  storage::Table table;
};
Result<StoredDataset> LoadDataset(const storage::ObjectStore& objects,
                                  const storage::Digest& manifest);

}  // namespace lepton::worker
