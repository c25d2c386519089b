// Tables of numbers: rows of features, or pixels of pictures.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "worker/data/image_examples.h"
#include "worker/data/normalize.h"
#include "worker/data/table_labels.h"

namespace lepton::worker {
namespace {

using storage::Column;

// Population mean and deviation of a column's present cells, in two passes.
Status Measure(const Column& column, const std::vector<int64_t>& rows, double& mean,
               double& scale) {
  double sum = 0;
  int64_t count = 0;
  for (const int64_t row : rows) {
    if (std::isnan(column.values[row])) continue;
    sum += column.values[row];
    ++count;
  }
  mean = count ? sum / static_cast<double>(count) : 0;
  double squares = 0;
  for (const int64_t row : rows) {
    if (std::isnan(column.values[row])) continue;
    squares += (column.values[row] - mean) * (column.values[row] - mean);
  }
  scale = count ? std::sqrt(squares / static_cast<double>(count)) : 0;
  if (!std::isfinite(mean) || !std::isfinite(scale)) {
    return InvalidArgument(
        fmt::format("dataset: column \"{}\" holds values too large to average", column.name));
  }
  // A constant column: its deviation is rounding noise at most.
  if (scale <= 1e-12 * std::abs(mean) || scale == 0) scale = 1;
  return Status::Ok();
}

ExamplesPtr FeaturesOf(const std::vector<int64_t>& rows, const std::vector<const Column*>& columns,
                       const PreparedData& data, const RowLabels& labels, const std::string& loss) {
  std::vector<float> x(rows.size() * columns.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column& column = *columns[i];
    for (size_t row = 0; row < rows.size(); ++row) {
      x[row * columns.size() + i] =
          NormalizeValue(column.values[rows[row]], data.mean[i], data.scale[i]);
    }
  }
  auto examples =
      std::make_shared<TableExamples>(rows, std::move(x), static_cast<int64_t>(columns.size()));
  GiveLabels(labels, loss, rows, *examples);
  return examples;
}

void Describe(const RowLabels& labels, const std::string& loss, PreparedData* data) {
  data->label_name = labels.name;
  data->classes = labels.classes;
  data->shape.outputs = OutputsOf(loss, labels.classes.size());
}

}  // namespace

Result<PreparedData> PrepareTable(const StoredDataset& dataset, const DataRequest& request) {
  if (request.loss == "next_token") {
    return InvalidArgument(
        "loss: next_token needs text: name its column with dataset.text, or give a file of text");
  }
  LEPTON_ASSIGN_OR_RETURN(const RowLabels labels, LabelsOfTable(dataset, request));
  PreparedData data;
  Describe(labels, request.loss, &data);
  LEPTON_ASSIGN_OR_RETURN(const std::vector<const Column*> columns,
                          ChooseFeatures(dataset.table, request));
  data.mean.assign(columns.size(), 0);
  data.scale.assign(columns.size(), 1);
  for (size_t i = 0; i < columns.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(CheckFeature(*columns[i], request.dataset));
    data.feature_names.push_back(columns[i]->name);
    if (request.like == nullptr && request.dataset.normalize == "standard") {
      LEPTON_RETURN_IF_ERROR(Measure(*columns[i], labels.split.train, data.mean[i], data.scale[i]));
    }
  }
  if (request.like != nullptr) {
    data.mean = request.like->mean;
    data.scale = request.like->scale;
  }
  data.shape.kind = nn::DataShape::Kind::kFeatures;
  data.shape.features = static_cast<int64_t>(columns.size());
  data.train = FeaturesOf(labels.split.train, columns, data, labels, request.loss);
  data.train_plain = data.train;
  data.validation = FeaturesOf(labels.split.validation, columns, data, labels, request.loss);
  data.test = FeaturesOf(labels.split.test, columns, data, labels, request.loss);
  return data;
}

Result<PreparedData> PreparePixelTable(const StoredDataset& dataset, const DataRequest& request) {
  LEPTON_ASSIGN_OR_RETURN(const RowLabels labels, LabelsOfTable(dataset, request));
  LEPTON_ASSIGN_OR_RETURN(const std::vector<const Column*> columns,
                          ChooseFeatures(dataset.table, request));
  ImageShape shape;
  if (request.like != nullptr) {
    const storage::ModelInput& input = request.like->input;
    shape = {input.channels, input.height, input.width};
  } else {
    const spec::PictureSpec& image = request.dataset.image;
    shape = {image.channels, image.height, image.width};
    const auto features = static_cast<int64_t>(columns.size());
    if (shape.channels == 0 && features % shape.plane() == 0) {
      shape.channels = features / shape.plane();
    }
    if (shape.size() != features) {
      return InvalidArgument(fmt::format(
          "dataset.image: {} x {} x {} pixels, but the table has {} columns beside the label",
          std::max<int64_t>(1, shape.channels), shape.height, shape.width, features));
    }
  }
  std::vector<float> pixels(dataset.table.rows * shape.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    spec::DatasetSpec strict = request.dataset;
    strict.missing = "error";  // a picture has all its pixels
    LEPTON_RETURN_IF_ERROR(CheckFeature(*columns[i], strict));
    for (int64_t row = 0; row < dataset.table.rows; ++row) {
      pixels[row * shape.size() + static_cast<int64_t>(i)] =
          static_cast<float>(columns[i]->values[row]);
    }
  }
  const auto store = PixelStore::Numbers(std::move(pixels), shape);
  LEPTON_ASSIGN_OR_RETURN(PreparedData data, PreparedPictures(store, labels, request));
  for (const Column* column : columns) data.feature_names.push_back(column->name);
  return data;
}

}  // namespace lepton::worker
