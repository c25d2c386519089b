#include "worker/train/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/nn/divided_model.h"
#include "runtime/nn/onnx_model.h"
#include "worker/data/prepared_data.h"

namespace lepton::worker {
namespace {

constexpr char kFurtherWeights[] = "weights-";
constexpr char kSafetensors[] = ".safetensors";
constexpr size_t kVerified = size_t{64} << 20;  // bytes; larger objects are read as they are used

Result<DType> DTypeOf(const safetensors::TensorView& view) {
  if (view.dtype == "F32") return DType::kF32;
  if (view.dtype == "F16") return DType::kF16;
  if (view.dtype == "BF16") return DType::kBF16;
  return InvalidArgument(
      fmt::format("parameter {}: type {} is not supported: must be F32, F16 or "
                  "BF16",
                  view.name, view.dtype));
}

std::string_view NameOf(DType dtype) {
  return dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
}

// Maps all weights of a manifest.
Status MapWeights(const storage::ObjectStore& objects, StoredModel& model) {
  std::vector<storage::Digest> digests = {model.manifest.weights};
  for (const auto& [name, digest] : model.manifest.files) {
    if (IsFurtherWeights(name)) digests.push_back(digest);
  }
  for (const storage::Digest& digest : digests) {
    LEPTON_ASSIGN_OR_RETURN(const uint64_t size, objects.Size(digest));
    LEPTON_ASSIGN_OR_RETURN(MappedFile file, objects.Map(digest, size <= kVerified));
    model.mapped.push_back(std::make_shared<const MappedFile>(std::move(file)));
    LEPTON_ASSIGN_OR_RETURN(const safetensors::File parsed,
                            safetensors::Parse(model.mapped.back()->bytes()));
    for (const safetensors::TensorView& view : parsed.tensors) {
      LEPTON_ASSIGN_OR_RETURN(const DType dtype, DTypeOf(view));
      if (!model.tensors.insert({view.name, {dtype, view.shape, view.bytes.data()}}).second) {
        return DataLoss(fmt::format("parameter {}: is there twice", view.name));
      }
    }
  }
  return Status::Ok();
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
    // Older versions did not look for the model's places and wrote their own default.
    int64_t& context = model.manifest.input.context;
    if (model.manifest.input.kind == "tokens") {
      LEPTON_ASSIGN_OR_RETURN(const int64_t places, nn::OnnxContext(model.model));
      if (places > 0) context = context > 0 ? std::min(context, places) : places;
    }
  }
  LEPTON_RETURN_IF_ERROR(MapWeights(objects, model));
  size_t bytes = 0;
  for (const auto& file : model.mapped) bytes += file->size();
  if (bytes <= kVerified &&
      safetensors::WeightsDigest(WeightViews(model)) != model.manifest.weights_sha256) {
    return DataLoss("the weights are not those that the manifest names");
  }
  return model;
}

std::vector<safetensors::TensorView> WeightViews(const StoredModel& model) {
  std::vector<safetensors::TensorView> views;
  for (const auto& [name, tensor] : model.tensors) {
    const size_t bytes = static_cast<size_t>(tensor.elements()) * DTypeSize(tensor.dtype);
    views.push_back({name,
                     std::string(NameOf(tensor.dtype)),
                     tensor.shape,
                     {static_cast<const char*>(tensor.data), bytes}});
  }
  return views;
}

std::string FurtherWeights(size_t index) {
  return fmt::format("{}{}{}", kFurtherWeights, index + 1, kSafetensors);
}

bool IsFurtherWeights(std::string_view file) {
  return file.starts_with(kFurtherWeights) && file.ends_with(kSafetensors);
}

Result<std::string> DigestOfWeights(const storage::ObjectStore& objects,
                                    const storage::ModelManifest& manifest) {
  StoredModel model;
  model.manifest = manifest;
  LEPTON_RETURN_IF_ERROR(MapWeights(objects, model));
  return safetensors::WeightsDigest(WeightViews(model));
}

Status CopyWeights(const StoredModel& model, const std::vector<nn::ParameterView>& parameters,
                   std::span<float> weights) {
  return nn::CopyWeights(model.tensors, parameters, weights);
}

Result<std::unique_ptr<nn::TrainingProgram>> BuildEvaluator(const StoredModel& model,
                                                            const std::string& precision,
                                                            kernels::DeviceBackend* backend) {
  nn::TrainingProgram::Options options;
  options.model = model.model;
  options.loss = NnLoss(model.manifest.loss);
  options.precision = model.manifest.precision;
  if (precision != "model") options.inference_precision = precision;
  options.trains = false;
  options.backend = backend;
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
  LEPTON_ASSIGN_OR_RETURN(written.manifest, objects.Put(storage::ToText(manifest)));
  return written;
}

Result<WrittenModel> WriteModel(storage::ObjectStore* objects, storage::ModelManifest manifest,
                                nn::TrainingProgram& program) {
  const std::vector<nn::ParameterView> whole = nn::WholeParameters(program.parameters());
  std::vector<safetensors::TensorPlace> places;
  for (const nn::ParameterView& view : whole) {
    places.push_back({view.name, "F32", view.shape});
  }
  LEPTON_ASSIGN_OR_RETURN(const safetensors::FileStart start,
                          safetensors::SerializeStart(places, {{"format", "lepton"}}));
  std::unique_ptr<storage::ObjectStore::Writer> writer;
  if (objects != nullptr) {
    LEPTON_ASSIGN_OR_RETURN(writer, objects->NewObject());
    LEPTON_RETURN_IF_ERROR(writer->Append(start.bytes));
  }
  safetensors::WeightsHash hash;
  // All are of one type: the file has them in name order too.
  const auto take = [&](const nn::ParameterView& view, std::span<const float> values) {
    if (writer == nullptr) return Status::Ok();
    const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    hash.Add({view.name, "F32", view.shape, bytes});
    return writer->Append(bytes);
  };
  LEPTON_RETURN_IF_ERROR(program.CollectWeights(take));
  WrittenModel written;
  if (writer == nullptr) return written;
  LEPTON_ASSIGN_OR_RETURN(written.weights, writer->Finish());
  manifest.weights = written.weights;
  manifest.weights_sha256 = hash.FinalHex();
  manifest.parameters = nn::ElementsOf(whole);
  LEPTON_ASSIGN_OR_RETURN(written.manifest, objects->Put(storage::ToText(manifest)));
  return written;
}

std::string ModelSpecToText(const spec::ModelSpec& model) {
  spec::ModelSpec copy = model;
  copy.from.clear();  // where training began; not part of the architecture
  copy.hf.clear();
  return spec::ModelSpecToJson(copy).dump();
}

Result<spec::ModelSpec> ModelSpecFromText(const std::string& text) {
  const nlohmann::json model = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (model.is_discarded()) return DataLoss("model manifest: model_spec_json is not JSON");
  return spec::ModelSpecFromJson(model);
}

}  // namespace lepton::worker
