// Pictures: of files in folders, and what they have in common with those of tables.
#include <fmt/format.h>

#include "worker/data/image_examples.h"
#include "worker/data/picture_file.h"
#include "worker/data/table_labels.h"

namespace lepton::worker {
namespace {

// One number for all channels, or one a channel.
std::vector<double> ByChannel(const std::vector<double>& given, int64_t channels) {
  if (given.size() != 1) return given;
  return std::vector<double>(channels, given[0]);
}

Result<PixelScale> ChooseScale(const PixelStore& store, const RowLabels& labels,
                               const DataRequest& request) {
  if (request.like != nullptr)
    return PixelScale{request.like->input.mean, request.like->input.scale};
  const int64_t channels = store.shape().channels;
  const spec::PictureSpec& image = request.dataset.image;
  PixelScale scale{std::vector<double>(channels, 0), std::vector<double>(channels, 1)};
  if (request.dataset.normalize == "none") return scale;
  if (image.mean.empty()) return MeasurePixels(store, labels.split.train);
  scale = {ByChannel(image.mean, channels), ByChannel(image.std, channels)};
  if (static_cast<int64_t>(scale.mean.size()) == channels) return scale;
  return InvalidArgument(
      fmt::format("dataset.image.mean: has {} numbers, but pictures have {} channels",
                  image.mean.size(), channels));
}

// The size that all pictures have, or 0.
ImageShape CommonSize(const storage::ImageIndex& index) {
  for (int64_t i = 1; i < index.size(); ++i) {
    if (index.widths[i] != index.widths[0] || index.heights[i] != index.heights[0]) return {};
  }
  return {0, index.heights[0], index.widths[0]};
}

PictureFit FitOf(const DataRequest& request) {
  if (request.like == nullptr) return {.how = request.dataset.image.fit};
  const storage::ModelInput& input = request.like->input;
  return {input.fit, input.edge, input.resample};
}

Result<ImageShape> ChooseShape(const storage::ImageIndex& index, const DataRequest& request) {
  if (request.like != nullptr) {
    const storage::ModelInput& input = request.like->input;
    return ImageShape{input.channels, input.height, input.width};
  }
  ImageShape shape{request.dataset.image.channels, request.dataset.image.height,
                   request.dataset.image.width};
  if (request.model != nullptr) {
    const spec::ImageSpec& model = request.model->image;
    if (shape.channels == 0) shape.channels = model.channels;
    if (shape.height == 0) shape.height = model.height;
    if (shape.width == 0) shape.width = model.width;
  }
  if (shape.channels == 0) shape.channels = 3;
  const ImageShape common = CommonSize(index);
  if (shape.height == 0) shape.height = common.height;
  if (shape.width == 0) shape.width = common.width;
  if (shape.channels != 1 && shape.channels != 3) {
    return InvalidArgument(fmt::format(
        "dataset.image.channels: {}, but pictures are read with 1 or 3", shape.channels));
  }
  if (shape.height > 0 && shape.width > 0) return shape;
  return InvalidArgument(
      "dataset.image: the pictures have different sizes: give the height and width to train with");
}

}  // namespace

Result<PreparedData> PreparedPictures(std::shared_ptr<const PixelStore> store,
                                      const RowLabels& labels, const DataRequest& request) {
  LEPTON_ASSIGN_OR_RETURN(const PixelScale scale, ChooseScale(*store, labels, request));
  PreparedData data;
  data.label_name = labels.name;
  data.classes = labels.classes;
  const ImageShape& shape = store->shape();
  data.shape.kind = nn::DataShape::Kind::kImages;
  data.shape.channels = shape.channels;
  data.shape.height = shape.height;
  data.shape.width = shape.width;
  data.shape.outputs = OutputsOf(request.loss, labels.classes.size());
  data.input.kind = "images";
  data.input.channels = shape.channels;
  data.input.height = shape.height;
  data.input.width = shape.width;
  data.input.mean = scale.mean;
  data.input.scale = scale.scale;
  const PictureFit fit = FitOf(request);
  data.input.fit = fit.how;
  data.input.edge = fit.edge;
  data.input.resample = fit.resample;
  const auto part = [&](const std::vector<int64_t>& rows, const Augmentation& augmentation) {
    auto examples = std::make_shared<ImageExamples>(store, rows, scale, augmentation);
    GiveLabels(labels, request.loss, rows, *examples);
    return examples;
  };
  const spec::PictureSpec& image = request.dataset.image;
  data.train = part(labels.split.train, {image.flip, image.shift, request.seed});
  data.train_plain = part(labels.split.train, {});
  data.validation = part(labels.split.validation, {});
  data.test = part(labels.split.test, {});
  return data;
}

Result<PreparedData> PrepareImages(const StoredDataset& dataset, const DataRequest& request,
                                   const DataTools& tools) {
  LEPTON_ASSIGN_OR_RETURN(const StoredImages images, LoadImages(tools.objects, dataset.manifest));
  LEPTON_ASSIGN_OR_RETURN(const RowLabels labels,
                          LabelsOfFolders(dataset.manifest, images.index.labels, request));
  LEPTON_ASSIGN_OR_RETURN(const ImageShape shape, ChooseShape(images.index, request));
  LEPTON_ASSIGN_OR_RETURN(
      auto store, PixelsOfImages(images, dataset.manifest, shape, FitOf(request), tools.derived,
                                 tools.progress));
  return PreparedPictures(std::move(store), labels, request);
}

}  // namespace lepton::worker
