#include "worker/train/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/formats/safetensors/safetensors.h"
#include "worker/data/prepared_data.h"

namespace lepton::worker {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::vector<safetensors::TensorView> Views(const std::vector<nn::ParameterView>& parameters,
                                           std::span<const float> weights) {
  std::vector<safetensors::TensorView> views;
  for (const nn::ParameterView& parameter : parameters) {
    const std::span<const float> values = weights.subspan(parameter.offset, parameter.size);
    views.push_back(
        {parameter.name, "F32", parameter.shape,
         std::string_view(reinterpret_cast<const char*>(values.data()), values.size_bytes())});
  }
  return views;
}

}  // namespace

Result<nn::Signature> StoredModel::signature() const {
  return nn::MakeSignature(model, ShapeOf(manifest));
}

Result<StoredModel> LoadModel(const storage::ObjectStore& objects,
                              const storage::Digest& manifest) {
  StoredModel model;
  LEPTON_ASSIGN_OR_RETURN(const std::string json, objects.Get(manifest));
  LEPTON_ASSIGN_OR_RETURN(model.manifest, storage::ModelManifestFromJson(json));
  LEPTON_ASSIGN_OR_RETURN(model.model, ModelSpecFromText(model.manifest.model_spec_json));
  if (const auto graph = model.manifest.files.find(kOnnxGraphFile);
      graph != model.manifest.files.end()) {
    LEPTON_ASSIGN_OR_RETURN(std::string text, objects.Get(graph->second));
    model.model.onnx_graph = std::make_shared<const std::string>(std::move(text));
  }
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(model.manifest.weights));
  LEPTON_ASSIGN_OR_RETURN(const safetensors::File file, safetensors::Parse(bytes));
  if (safetensors::WeightsDigest(file.tensors) != model.manifest.weights_sha256) {
    return DataLoss("the weights are not those that the manifest names");
  }
  for (const safetensors::TensorView& view : file.tensors) {
    if (view.dtype != "F32") {
      return InvalidArgument(
          fmt::format("parameter {}: type {} is not supported, only F32", view.name, view.dtype));
    }
    StoredModel::Tensor& tensor = model.tensors[view.name];
    tensor.shape = view.shape;
    tensor.values.resize(view.bytes.size() / sizeof(float));
    std::memcpy(tensor.values.data(), view.bytes.data(), view.bytes.size());
  }
  return model;
}

Status CopyWeights(const StoredModel& model, const std::vector<nn::ParameterView>& parameters,
                   std::span<float> weights) {
  for (const nn::ParameterView& parameter : parameters) {
    const auto found = model.tensors.find(parameter.name);
    if (found == model.tensors.end()) {
      return InvalidArgument(
          fmt::format("parameter {}: the stored model does not have it", parameter.name));
    }
    const StoredModel::Tensor& tensor = found->second;
    if (tensor.shape != parameter.shape) {
      return InvalidArgument(
          fmt::format("parameter {}: the stored model's shape is {}, this one's {}", parameter.name,
                      ShapeText(tensor.shape), ShapeText(parameter.shape)));
    }
    std::copy(tensor.values.begin(), tensor.values.end(), weights.begin() + parameter.offset);
  }
  for (const auto& [name, tensor] : model.tensors) {
    const bool wanted = std::any_of(parameters.begin(), parameters.end(),
                                    [&](const auto& parameter) { return parameter.name == name; });
    if (!wanted) {
      return InvalidArgument(
          fmt::format("parameter {}: only the stored model has it, with shape {}", name,
                      ShapeText(tensor.shape)));
    }
  }
  return Status::Ok();
}

Result<std::unique_ptr<nn::TrainingProgram>> BuildEvaluator(const StoredModel& model) {
  nn::TrainingProgram::Options options;
  options.model = model.model;
  options.loss = NnLoss(model.manifest.loss);
  options.precision = model.manifest.precision;
  options.optimizer.name = "sgd";
  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature, model.signature());
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<nn::TrainingProgram> program,
                          nn::TrainingProgram::Build(signature, options));
  LEPTON_RETURN_IF_ERROR(CopyWeights(model, program->parameters(), program->weights()));
  return program;
}

Result<WrittenModel> WriteModel(storage::ObjectStore& objects, storage::ModelManifest manifest,
                                const std::vector<nn::ParameterView>& parameters,
                                std::span<const float> weights) {
  const std::vector<safetensors::TensorView> views = Views(parameters, weights);
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes,
                          safetensors::Serialize(views, {{"format", "lepton"}}));
  WrittenModel written;
  LEPTON_ASSIGN_OR_RETURN(written.weights, objects.Put(bytes));
  manifest.weights = written.weights;
  manifest.weights_sha256 = safetensors::WeightsDigest(views);
  manifest.parameters = static_cast<int64_t>(weights.size());
  LEPTON_ASSIGN_OR_RETURN(written.manifest, objects.Put(storage::ToJson(manifest).dump()));
  return written;
}

std::string ModelSpecToText(const spec::ModelSpec& model) {
  spec::ModelSpec copy = model;
  copy.from.clear();  // where training began; not part of the architecture
  return spec::ModelSpecToJson(copy).dump();
}

Result<spec::ModelSpec> ModelSpecFromText(const std::string& text) {
  const nlohmann::json model = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (model.is_discarded()) return DataLoss("model manifest: model_spec_json is not JSON");
  return spec::ModelSpecFromJson(model);
}

}  // namespace lepton::worker
