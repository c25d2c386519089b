// The answers of a table's rows, and how rows are divided: the same for numbers, pixels and texts.
// Private to worker/data. Threads: plain values.
#pragma once

#include "worker/data/image_examples.h"
#include "worker/data/prepared_data.h"

namespace lepton::worker {

struct RowLabels {
  std::string name;
  std::vector<std::string> classes;   // class index -> label as text
  std::vector<int32_t> class_of_row;  // of classification
  std::vector<float> value_of_row;    // of regression
  storage::Split split;
};

// Of a table's label column. Nothing but the division for loss next_token and without labels.
Result<RowLabels> LabelsOfTable(const StoredDataset& dataset, const DataRequest& request);
// Of pictures in folders.
Result<RowLabels> LabelsOfFolders(const storage::DatasetManifest& manifest,
                                  std::span<const int32_t> labels, const DataRequest& request);

// An example's answers are those of its row.
void GiveLabels(const RowLabels& labels, const std::string& loss, std::span<const int64_t> rows,
                Examples& examples);

// Columns of features, without the label: all, or those of `like`.
Result<std::vector<const storage::Column*>> ChooseFeatures(const storage::Table& table,
                                                           const DataRequest& request);
// kInvalidArgument for text, infinities, and missing cells where they are refused.
Status CheckFeature(const storage::Column& column, const spec::DatasetSpec& dataset);

// A part without rows.
ExamplesPtr NoExamples();

// Pictures with these labels, whatever store they are in.
Result<PreparedData> PreparedPictures(std::shared_ptr<const PixelStore> store,
                                      const RowLabels& labels, const DataRequest& request);

// One way for each kind of data.
Result<PreparedData> PrepareTable(const StoredDataset& dataset, const DataRequest& request);
Result<PreparedData> PreparePixelTable(const StoredDataset& dataset, const DataRequest& request);
Result<PreparedData> PrepareImages(const StoredDataset& dataset, const DataRequest& request,
                                   const DataTools& tools);
Result<PreparedData> PrepareTexts(const StoredDataset& dataset, const DataRequest& request,
                                  const DataTools& tools);
Result<PreparedData> PrepareStream(const StoredDataset& dataset, const DataRequest& request,
                                   const DataTools& tools);

}  // namespace lepton::worker
