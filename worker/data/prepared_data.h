// A dataset version made ready to learn from: rows split, labels turned into classes or values,
// features and pixels normalised with what the training rows say, texts turned into tokens. A pure
// function of the dataset's bytes, the spec and the model it is for, so that every rank of a gang
// and every later evaluation sees the same examples.
// Threads: plain values; one preparation a call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/model_list.h"
#include "runtime/spec/job_spec.h"
#include "storage/datasets/dataset_manifest.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"
#include "worker/data/derived_file.h"
#include "worker/data/examples.h"
#include "worker/data/token_files.h"

namespace lepton::worker {

struct PreparedData {
  nn::DataShape shape;                     // what a model takes of it
  storage::ModelInput input;               // and how raw data becomes that
  std::vector<std::string> feature_names;  // of rows of numbers: columns in table order
  std::vector<double> mean, scale;         // by feature; scale 1 for a constant column
  std::string label_name;
  std::vector<std::string> classes;  // class index -> label as text; empty for other losses
  // None is null; a part without a share has no rows. `train` is what steps learn from, with
  // augmentation and windows that move from epoch to epoch; `train_plain` is the same part as an
  // evaluation sees it.
  ExamplesPtr train, train_plain, validation, test;
};

// A dataset as stored.
struct StoredDataset {
  storage::DatasetManifest manifest;
  storage::Table table;  // of kind kTable
};
Result<StoredDataset> LoadDataset(const storage::ObjectStore& objects,
                                  const storage::Digest& manifest);

struct DataRequest {
  const spec::DatasetSpec& dataset;
  std::string loss;
  // The sizes of a spec whose data leaves them open: of pictures, of a text, of a vocabulary.
  const spec::ModelSpec* model = nullptr;
  // The features (by name), normalisation, classes, sizes and tokenizer are those of this model
  // instead: for evaluation, teachers and fine-tuning. A table may then have further columns.
  const storage::ModelManifest* like = nullptr;
  std::string tokenizer;  // "bytes" or the digest of a tokenizer.json; "" for none
  uint64_t seed = 0;      // of augmentation and of where windows begin
  // Without labels, every row goes to `test` and answers are not looked at: for predictions.
  bool labels = true;
};

struct DataTools {
  const storage::ObjectStore& objects;
  DerivedFiles& derived;
  PrepareProgress progress = [](std::string_view, uint64_t, uint64_t) {};
};

// kInvalidArgument, naming the field and the column, class, file or position, for data that does
// not fit the spec: no such label, text or infinite features, missing labels, a class without a
// training row (unless `like`), a class or feature that `like` does not have, a token beyond the
// vocabulary, a picture that cannot be read. kDataLoss for corrupt objects.
Result<PreparedData> PrepareData(const StoredDataset& dataset, const DataRequest& request,
                                 const DataTools& tools);

// Columns of a model's output: classes, or 1; 0 for next_token, where its vocabulary counts.
int64_t OutputsOf(const std::string& loss, size_t classes);
// How nn knows a loss: next_token is cross_entropy over tokens.
std::string NnLoss(const std::string& loss);
// What a stored model takes.
nn::DataShape ShapeOf(const storage::ModelManifest& manifest);

}  // namespace lepton::worker
