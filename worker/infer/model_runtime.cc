#include "worker/infer/model_runtime.h"

#include <algorithm>
#include <cmath>

#include "worker/data/normalize.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

std::vector<float> Softmax(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> exponentials;
  double sum = 0;
  for (const float logit : logits) {
    exponentials.push_back(std::exp(static_cast<double>(logit) - top));
    sum += exponentials.back();
  }
  std::vector<float> probabilities;
  for (const double value : exponentials) probabilities.push_back(static_cast<float>(value / sum));
  return probabilities;
}

}  // namespace

void Normalize(std::span<const double> raw, std::span<const double> mean,
               std::span<const double> scale, std::span<float> x) {
  const size_t features = mean.size();
  for (size_t i = 0; i < raw.size(); ++i) {
    const size_t column = i % features;
    x[i] = NormalizeValue(raw[i], mean[column], scale[column]);
  }
}

Prediction Decode(const storage::ModelManifest& manifest, std::span<const float> logits) {
  Prediction prediction;
  if (manifest.loss == "cross_entropy") {
    prediction.probabilities = Softmax(logits);
    // By the logits: two probabilities may round to the same float.
    prediction.class_index = std::max_element(logits.begin(), logits.end()) - logits.begin();
  } else if (manifest.loss == "binary_cross_entropy") {
    const double yes = 1 / (1 + std::exp(-static_cast<double>(logits[0])));
    prediction.probabilities = {static_cast<float>(1 - yes), static_cast<float>(yes)};
    prediction.class_index = logits[0] > 0 ? 1 : 0;
  } else {
    return prediction;
  }
  const auto index = static_cast<size_t>(prediction.class_index);
  prediction.label =
      index < manifest.classes.size() ? manifest.classes[index] : std::to_string(index);
  return prediction;
}

Result<std::unique_ptr<LoadedModel>> LoadedModel::Load(const storage::ObjectStore& objects,
                                                       const storage::Digest& manifest,
                                                       const std::string& precision) {
  LEPTON_ASSIGN_OR_RETURN(StoredModel stored, LoadModel(objects, manifest));
  auto model = std::unique_ptr<LoadedModel>(new LoadedModel());
  LEPTON_ASSIGN_OR_RETURN(model->signature_, stored.signature());
  const size_t features = stored.manifest.feature_names.size();
  if (features == 0 || stored.manifest.mean.size() != features ||
      stored.manifest.scale.size() != features || model->signature_.outputs < 1) {
    return DataLoss("model manifest: features, mean and scale do not agree");
  }
  LEPTON_ASSIGN_OR_RETURN(
      model->program_,
      nn::InferenceProgram::Build(model->signature_, stored.model,
                                  precision.empty() ? stored.manifest.precision : precision));
  LEPTON_RETURN_IF_ERROR(
      CopyWeights(stored, model->program_->parameters(), model->program_->weights()));
  LEPTON_RETURN_IF_ERROR(model->program_->Prepare());
  model->manifest_ = std::move(stored.manifest);
  return model;
}

Status LoadedModel::Run(int64_t rows, std::span<const double> raw, std::span<float> logits) {
  x_.resize(raw.size());
  Normalize(raw, manifest_.mean, manifest_.scale, x_);
  return RunNormalized(rows, x_, logits);
}

Status LoadedModel::RunNormalized(int64_t rows, std::span<const float> x, std::span<float> logits) {
  if (x.size() != static_cast<size_t>(rows * features())) {
    return InvalidArgument("x: has " + std::to_string(x.size()) + " numbers; must have " +
                           std::to_string(rows) + " rows of " + std::to_string(features()));
  }
  return program_->Forward(nn::Batch::Features(x, features()), logits);
}

}  // namespace lepton::worker
