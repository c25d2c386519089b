#include "worker/data/prepared_data.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "worker/data/table_labels.h"

namespace lepton::worker {
namespace {

using storage::DatasetKind;

// A model that exists takes data of its own kind.
Status CheckLike(const storage::DatasetManifest& manifest, const storage::ModelManifest& like) {
  const std::string& kind = like.input.kind;
  const bool columns = kind == "features" || (kind == "images" && !like.feature_names.empty());
  const bool table = manifest.kind == DatasetKind::kTable;
  const bool fits = table                                   ? columns || kind == "tokens"
                    : manifest.kind == DatasetKind::kImages ? kind == "images" && !columns
                                                            : kind == "tokens";
  if (fits) return Status::Ok();
  return InvalidArgument(fmt::format("dataset: the model takes {}{}, but the data is {}", kind,
                                     columns ? " of a table's columns" : "",
                                     DatasetKindName(manifest.kind)));
}

Result<PreparedData> PrepareRows(const StoredDataset& dataset, const DataRequest& request,
                                 const DataTools& tools) {
  const storage::ModelManifest* like = request.like;
  const std::string kind = like != nullptr                 ? like->input.kind
                           : !request.dataset.text.empty() ? "tokens"
                           : request.dataset.pixels()      ? "images"
                                                           : "features";
  if (kind == "tokens") return PrepareTexts(dataset, request, tools);
  if (kind == "images") return PreparePixelTable(dataset, request);
  return PrepareTable(dataset, request);
}

}  // namespace

Result<PreparedData> PrepareData(const StoredDataset& dataset, const DataRequest& request,
                                 const DataTools& tools) {
  if (request.like != nullptr) {
    LEPTON_RETURN_IF_ERROR(CheckLike(dataset.manifest, *request.like));
  }
  switch (dataset.manifest.kind) {
    case DatasetKind::kTable:
      return PrepareRows(dataset, request, tools);
    case DatasetKind::kImages:
      return PrepareImages(dataset, request, tools);
    case DatasetKind::kText:
    case DatasetKind::kTokens:
      break;
  }
  return PrepareStream(dataset, request, tools);
}

Result<StoredDataset> LoadDataset(const storage::ObjectStore& objects,
                                  const storage::Digest& manifest) {
  StoredDataset stored;
  LEPTON_ASSIGN_OR_RETURN(const std::string json, objects.Get(manifest));
  LEPTON_ASSIGN_OR_RETURN(stored.manifest, storage::DatasetManifestFromJson(json));
  if (stored.manifest.kind != DatasetKind::kTable) return stored;
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(stored.manifest.table));
  LEPTON_ASSIGN_OR_RETURN(stored.table, storage::TableFromSafetensors(bytes));
  return stored;
}

int64_t OutputsOf(const std::string& loss, size_t classes) {
  if (loss == "next_token") return 0;  // as many as the model's vocabulary has
  return loss == "cross_entropy" ? static_cast<int64_t>(classes) : 1;
}

std::string NnLoss(const std::string& loss) {
  return loss == "next_token" ? "cross_entropy" : loss;
}

nn::DataShape ShapeOf(const storage::ModelManifest& manifest) {
  const storage::ModelInput& input = manifest.input;
  nn::DataShape shape;
  shape.outputs = OutputsOf(manifest.loss, manifest.classes.size());
  // A body without a head says its features.
  const nlohmann::json document =
      nlohmann::json::parse(manifest.model_spec_json, nullptr, /*allow_exceptions=*/false);
  if (document.is_object()) {
    const auto model = spec::ModelSpecFromJson(document);
    if (model.ok() && model->head == "none") shape.outputs = nn::FeatureWidth(*model);
  }
  if (input.kind == "images") {
    shape.kind = nn::DataShape::Kind::kImages;
    shape.channels = input.channels;
    shape.height = input.height;
    shape.width = input.width;
  } else if (input.kind == "tokens") {
    shape.kind = nn::DataShape::Kind::kTokens;
    shape.vocabulary = input.vocabulary;
    shape.context = input.context;
    shape.per_token = input.per_token;
  } else {
    shape.features = static_cast<int64_t>(manifest.feature_names.size());
  }
  return shape;
}

}  // namespace lepton::worker
