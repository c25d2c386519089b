#include "worker/infer/model_runtime.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/json_text.h"
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

Status CheckAnswer(const storage::ModelManifest& manifest, std::span<const float> logits) {
  // Minus infinity is a class that cannot be, if there is another; of a yes or no both are answers.
  const bool sure = manifest.loss == "binary_cross_entropy";
  float top = sure ? 0 : -std::numeric_limits<float>::infinity();
  for (const float logit : logits) {
    if (std::isnan(logit)) return InvalidArgument("the model's answer is not a number");
    top = std::max(top, logit);
  }
  if (sure || std::isfinite(top)) return Status::Ok();
  return InvalidArgument("the model's answer is not finite");
}

void Normalize(std::span<const double> raw, std::span<const double> mean,
               std::span<const double> scale, int64_t plane, std::span<float> x) {
  const size_t row = mean.size() * static_cast<size_t>(plane);
  for (size_t i = 0; i < raw.size(); ++i) {
    const size_t column = i % row / static_cast<size_t>(plane);
    x[i] = NormalizeValue(raw[i], mean[column], scale[column]);
  }
}

Prediction Decode(const storage::ModelManifest& manifest, std::span<const float> logits) {
  Prediction prediction;
  const bool yes_or_no = manifest.loss == "binary_cross_entropy";
  if (!yes_or_no && manifest.loss != "cross_entropy") return prediction;
  if (!CheckAnswer(manifest, logits).ok()) {
    prediction.probabilities.assign(yes_or_no ? 2 : logits.size(), NAN);
    return prediction;
  }
  if (yes_or_no) {
    const double yes = 1 / (1 + std::exp(-static_cast<double>(logits[0])));
    prediction.probabilities = {static_cast<float>(1 - yes), static_cast<float>(yes)};
    prediction.class_index = logits[0] > 0 ? 1 : 0;
  } else {
    prediction.probabilities = Softmax(logits);
    // By the logits: two probabilities may round to the same float.
    prediction.class_index = std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  const auto index = static_cast<size_t>(prediction.class_index);
  prediction.label =
      index < manifest.classes.size() ? manifest.classes[index] : std::to_string(index);
  return prediction;
}

namespace {

// kDataLoss when the manifest's parts cannot belong to one model.
Result<int64_t> NumbersOfRow(const storage::ModelManifest& manifest,
                             const nn::Signature& signature) {
  const storage::ModelInput& input = manifest.input;
  if (signature.outputs < 1) return DataLoss("model manifest: it has no outputs");
  if (input.kind == "tokens") return 0;
  if (input.kind == "images") return input.channels * input.height * input.width;
  const size_t features = manifest.feature_names.size();
  if (features == 0 || manifest.mean.size() != features || manifest.scale.size() != features) {
    return DataLoss("model manifest: features, mean and scale do not agree");
  }
  return static_cast<int64_t>(features);
}

// eos_token_id of the kept files, a number or several; generation_config.json goes first.
Result<std::vector<uint32_t>> EndTokens(const storage::ObjectStore& objects,
                                        const storage::ModelManifest& manifest) {
  std::vector<uint32_t> ends;
  for (const char* name : {"generation_config.json", "config.json"}) {
    const auto kept = manifest.files.find(name);
    if (kept == manifest.files.end()) continue;
    LEPTON_ASSIGN_OR_RETURN(const std::string text, objects.Get(kept->second));
    const nlohmann::json config = ParseJson(text).value_or(nlohmann::json());
    const auto found = config.is_object() ? config.find("eos_token_id") : config.end();
    if (found == config.end()) continue;
    const nlohmann::json ids = found->is_array() ? *found : nlohmann::json::array({*found});
    for (const nlohmann::json& id : ids) {
      if (id.is_number_unsigned()) ends.push_back(id.get<uint32_t>());
    }
    if (!ends.empty()) break;
  }
  return ends;
}

}  // namespace

Result<std::unique_ptr<LoadedModel>> LoadedModel::Load(
    const storage::ObjectStore& objects, const storage::Digest& manifest,
    const std::string& precision, std::unique_ptr<kernels::DeviceBackend> device) {
  LEPTON_ASSIGN_OR_RETURN(StoredModel stored, LoadModel(objects, manifest));
  auto model = std::unique_ptr<LoadedModel>(new LoadedModel());
  model->device_ = std::move(device);
  LEPTON_ASSIGN_OR_RETURN(model->signature_, stored.signature());
  LEPTON_ASSIGN_OR_RETURN(model->numbers_, NumbersOfRow(stored.manifest, model->signature_));
  LEPTON_ASSIGN_OR_RETURN(
      model->program_,
      nn::InferenceProgram::Build(model->signature_, stored.model,
                                  precision == "model" ? stored.manifest.precision : precision,
                                  model->device_.get()));
  LEPTON_ASSIGN_OR_RETURN(auto weights,
                          nn::StoredWeights::Make(stored.tensors, model->program_->parameters()));
  LEPTON_RETURN_IF_ERROR(model->program_->Bind(std::move(weights)));
  model->mapped_ = stored.mapped;
  LEPTON_RETURN_IF_ERROR(model->program_->Prepare());
  LEPTON_RETURN_IF_ERROR(model->Adopt(objects, stored.manifest.input.tokenizer));
  LEPTON_ASSIGN_OR_RETURN(model->ends_, EndTokens(objects, stored.manifest));
  model->manifest_ = std::move(stored.manifest);
  model->buffer_ = std::make_unique<BatchBuffer>(model->signature_);
  return model;
}

Status LoadedModel::Adopt(const storage::ObjectStore& objects, const std::string& tokenizer) {
  if (encoder_ != nullptr || tokenizer.empty()) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(encoder_, TextEncoder::Load(objects, tokenizer));
  return Status::Ok();
}

bool LoadedModel::IsEnd(uint32_t id) const {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end() ||
         (encoder_ != nullptr && encoder_->IsEnd(id));
}

Result<nn::DecodingProgram*> LoadedModel::Decoder(const nn::DecodingProgram::Options& wanted) {
  if (decoder_ != nullptr && decoder_for_.slots >= wanted.slots &&
      decoder_for_.context >= wanted.context) {
    return decoder_.get();
  }
  decoder_.reset();  // the two are not there at once
  LEPTON_ASSIGN_OR_RETURN(decoder_, program_->MakeDecoder(wanted));
  decoder_for_ = wanted;
  return decoder_.get();
}

Status LoadedModel::FillRows(const ModelRows& rows) {
  if (numbers_ == 0) {
    if (static_cast<int64_t>(rows.texts.size()) != rows.rows) {
      return InvalidArgument("the model takes texts");
    }
    return FillTexts(rows.texts, manifest_.input.context, *buffer_);
  }
  if (static_cast<int64_t>(rows.raw.size()) != rows.rows * numbers_) {
    return InvalidArgument("has " + std::to_string(rows.raw.size()) + " numbers; must have " +
                           std::to_string(rows.rows) + " rows of " + std::to_string(numbers_));
  }
  buffer_->Resize(rows.rows);
  const storage::ModelInput& input = manifest_.input;
  const bool image = input.kind == "images";
  const std::span<float> x(buffer_->Floats(image ? "pixels" : "x"), rows.raw.size());
  if (image) {
    Normalize(rows.raw, input.mean, input.scale, input.height * input.width, x);
  } else {
    Normalize(rows.raw, manifest_.mean, manifest_.scale, 1, x);
  }
  return Status::Ok();
}

Status LoadedModel::Run(const ModelRows& rows, std::span<float> logits) {
  if (signature_.per_token) return InvalidArgument("a language model answers per token");
  LEPTON_RETURN_IF_ERROR(FillRows(rows));
  return program_->Forward(buffer_->batch(), logits);
}

ModelRows LoadedModel::BlankRows(int64_t rows) const {
  ModelRows blank{rows, {}, {}};
  if (numbers_ == 0) {
    blank.texts.assign(static_cast<size_t>(rows), TokenText{{0}, {}});
  } else {
    blank.raw.assign(static_cast<size_t>(rows * numbers_), 0);
  }
  return blank;
}

}  // namespace lepton::worker
