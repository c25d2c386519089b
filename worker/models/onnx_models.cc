#include "worker/models/onnx_models.h"

#include <glog/logging.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/model_file.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/onnx_model.h"
#include "worker/models/onnx_probe.h"

namespace lepton::worker {
namespace {

using nlohmann::json;

// Keys of the metadata that exported models carry.
constexpr const char* kFeatures = "lepton.features";
constexpr const char* kClasses = "lepton.classes";
constexpr const char* kLabel = "lepton.label";
constexpr const char* kLoss = "lepton.loss";

std::vector<std::string> ListIn(const std::map<std::string, std::string>& metadata,
                                const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return {};
  const json list = json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> texts;
  for (const json& item : list) {
    if (item.is_string()) texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::string TextIn(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

std::vector<std::string> Numbered(const std::string& prefix, int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(prefix + std::to_string(i));
  return names;
}

// The columns of a table that pictures are, where somebody names them: without names they are
// files.
Status NamePixels(const OnnxNames& given, const std::map<std::string, std::string>& metadata,
                  const nn::DataShape& data, storage::ModelManifest& manifest) {
  const auto pixels = static_cast<size_t>(data.channels * data.height * data.width);
  const std::vector<std::string> written = ListIn(metadata, kFeatures);
  if (written.size() == pixels) manifest.feature_names = written;
  const bool own = given.weak && !manifest.feature_names.empty();
  if (own || given.features.empty()) return Status::Ok();
  if (given.features.size() == pixels) {
    manifest.feature_names = given.features;
  } else if (!given.weak) {
    return InvalidArgument("model.onnx: the model takes " + std::to_string(pixels) +
                           " pixels, but " + std::to_string(given.features.size()) + " are named");
  }
  return Status::Ok();
}

Status ChooseNames(const OnnxNames& given, const std::map<std::string, std::string>& metadata,
                   const nn::DataShape& data, storage::ModelManifest& manifest) {
  const auto choose = [](const auto& first, const auto& second) {
    return first.empty() ? second : first;
  };
  const auto said = [&](const auto& by_caller, const auto& by_file) {
    return given.weak ? choose(by_file, by_caller) : choose(by_caller, by_file);
  };
  manifest.label_name = choose(said(given.label, TextIn(metadata, kLabel)), std::string("label"));
  manifest.loss = said(given.loss, TextIn(metadata, kLoss));
  if (data.per_token) {
    manifest.loss = "next_token";
  } else if (manifest.loss.empty() || manifest.loss == "next_token") {
    manifest.loss = data.outputs == 1 ? "mse" : "cross_entropy";
  }
  const bool classifies =
      manifest.loss == "cross_entropy" || manifest.loss == "binary_cross_entropy";
  const int64_t classes = manifest.loss == "binary_cross_entropy" ? 2 : data.outputs;
  if (classifies) {
    // Rows that are only measured need not be of all classes.
    const bool fits =
        !given.weak || given.trains || given.classes.size() == static_cast<size_t>(classes);
    const std::vector<std::string> named = fits ? given.classes : std::vector<std::string>();
    manifest.classes = choose(said(named, ListIn(metadata, kClasses)), Numbered("", classes));
    if (static_cast<int64_t>(manifest.classes.size()) != classes) {
      return InvalidArgument("model.onnx: the model has " + std::to_string(classes) +
                             " classes, but " + std::to_string(manifest.classes.size()) +
                             " are named");
    }
  }
  if (data.kind == nn::DataShape::Kind::kImages) return NamePixels(given, metadata, data, manifest);
  if (data.kind != nn::DataShape::Kind::kFeatures) return Status::Ok();
  manifest.feature_names =
      choose(said(given.features, ListIn(metadata, kFeatures)), Numbered("x.", data.features));
  if (static_cast<int64_t>(manifest.feature_names.size()) != data.features) {
    return InvalidArgument("model.onnx: the model takes " + std::to_string(data.features) +
                           " features, but " + std::to_string(manifest.feature_names.size()) +
                           " are named");
  }
  manifest.mean.assign(manifest.feature_names.size(), 0);
  manifest.scale.assign(manifest.feature_names.size(), 1);
  return Status::Ok();
}

void DescribeInput(const nn::DataShape& data, storage::ModelInput& input) {
  if (data.kind == nn::DataShape::Kind::kImages) {
    input.kind = "images";
    input.channels = data.channels;
    input.height = data.height;
    input.width = data.width;
    input.mean.assign(data.channels, 0);
    input.scale.assign(data.channels, 1);
  } else if (data.kind == nn::DataShape::Kind::kTokens) {
    input.kind = "tokens";
    input.vocabulary = data.vocabulary;
    input.context = data.context;
    input.per_token = data.per_token;
  }
}

// The data is prepared as the model did it itself.
Status PrepareAs(const onnx::ExportRequest::Normalization& normalize,
                 storage::ModelManifest& manifest) {
  const bool images = manifest.input.kind == "images";
  std::vector<double>& mean = images ? manifest.input.mean : manifest.mean;
  std::vector<double>& scale = images ? manifest.input.scale : manifest.scale;
  if (normalize.mean.size() != mean.size()) {
    return InvalidArgument("model.onnx: its first nodes do not fit its input");
  }
  mean.assign(normalize.mean.begin(), normalize.mean.end());
  scale.assign(normalize.scale.begin(), normalize.scale.end());
  return Status::Ok();
}

std::map<std::string, std::string> Describe(const storage::ModelManifest& manifest) {
  std::map<std::string, std::string> metadata = {{kLoss, manifest.loss},
                                                 {kLabel, manifest.label_name}};
  const auto list = [](const std::vector<std::string>& texts) {
    return json(texts).dump(-1, ' ', false, json::error_handler_t::replace);
  };
  if (!manifest.feature_names.empty()) metadata[kFeatures] = list(manifest.feature_names);
  if (!manifest.classes.empty()) metadata[kClasses] = list(manifest.classes);
  return metadata;
}

// What the data's preparation did to the numbers; nothing when it did nothing.
std::optional<onnx::ExportRequest::Normalization> NormalizationOf(
    const storage::ModelManifest& manifest) {
  const bool images = manifest.input.kind == "images";
  const std::vector<double>& mean = images ? manifest.input.mean : manifest.mean;
  const std::vector<double>& scale = images ? manifest.input.scale : manifest.scale;
  const auto is = [](double number) { return [number](double x) { return x == number; }; };
  if (std::all_of(mean.begin(), mean.end(), is(0)) &&
      std::all_of(scale.begin(), scale.end(), is(1))) {
    return std::nullopt;
  }
  return onnx::ExportRequest::Normalization{
      images ? "pixels" : "x", {mean.begin(), mean.end()}, {scale.begin(), scale.end()}};
}

// The weights in f32: where they lie, or copies.
struct FloatWeights {
  std::map<std::string, TensorView> views;
  std::vector<std::shared_ptr<const float>> held;
};
Result<FloatWeights> FloatsOf(const StoredModel& stored) {
  std::vector<nn::ParameterView> parameters;
  for (const auto& [name, tensor] : stored.tensors) {
    parameters.push_back({name, tensor.shape, 0, tensor.elements()});
  }
  FloatWeights weights;
  LEPTON_ASSIGN_OR_RETURN(const auto source, nn::StoredWeights::Make(stored.tensors, parameters));
  for (size_t i = 0; i < parameters.size(); ++i) {
    weights.held.push_back(source->Floats(i));
    weights.views[parameters[i].name] = {const_cast<float*>(weights.held.back().get()),
                                         {DType::kF32, Shape(parameters[i].shape)}};
  }
  return weights;
}

// The forward graph as programs build it, in f32.
Result<onnx::ExportedModel> ExportGraph(const StoredModel& stored, int64_t inline_bytes,
                                        const std::string& data_file) {
  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature, stored.signature());
  graph::Graph graph(onnx::ImportOps());
  nn::ModelBuilder builder(graph, /*training=*/false, "f32");
  const std::vector<graph::ValueId> inputs = nn::AddInputs(graph, signature);
  onnx::ExportRequest request;
  LEPTON_ASSIGN_OR_RETURN(const graph::ValueId logits,
                          nn::BuildModel(builder, signature, stored.model, inputs));
  request.graph = &graph;
  request.outputs = {{"logits", logits}};
  LEPTON_ASSIGN_OR_RETURN(const FloatWeights floats, FloatsOf(stored));
  const auto& weights = floats.views;
  for (const auto& parameter : builder.parameters()) {
    const auto found = weights.find(parameter.view.name);
    if (found == weights.end()) {
      return DataLoss("parameter " + parameter.view.name + ": the stored model does not have it");
    }
    request.weights[parameter.value] = found->second;
  }
  request.normalize = NormalizationOf(stored.manifest);
  request.metadata = Describe(stored.manifest);
  request.inline_bytes = inline_bytes;
  request.data_file = data_file;
  return onnx::Export(request);
}

}  // namespace

Result<StoredOnnx> ImportOnnx(storage::ObjectStore& objects, std::string_view bytes,
                              const onnx::ExternalData& external, const OnnxNames& names) {
  LEPTON_ASSIGN_OR_RETURN(onnx::TakenApart apart, onnx::TakeApart(bytes, external));
  spec::ModelSpec model;
  model.arch = "onnx";
  model.onnx_graph = std::make_shared<const std::string>(apart.graph);
  LEPTON_ASSIGN_OR_RETURN(const nn::OnnxFacts facts, nn::ExamineOnnx(model));
  if (names.trains && !facts.trains) {
    return FailedPrecondition("model.onnx: cannot be trained: " + facts.reason);
  }
  StoredOnnx stored;
  storage::ModelManifest& manifest = stored.content;
  manifest.model_spec_json = ModelSpecToText(model);
  manifest.precision = "f32";
  DescribeInput(facts.data, manifest.input);
  LEPTON_RETURN_IF_ERROR(ChooseNames(names, apart.metadata, facts.data, manifest));
  if (apart.normalize) LEPTON_RETURN_IF_ERROR(PrepareAs(*apart.normalize, manifest));

  std::vector<safetensors::TensorView> views;
  for (const onnx::NamedTensor& weight : apart.weights) {
    views.push_back(
        {weight.name,
         "F32",
         weight.tensor.type.shape.extents(),
         {static_cast<const char*>(weight.tensor.data.data()), weight.tensor.type.bytes()}});
    manifest.parameters += weight.tensor.type.shape.elements();
  }
  if (facts.kind == nn::DataShape::Kind::kTokens) {
    nn::SourceTensors weights;
    for (const onnx::NamedTensor& weight : apart.weights) {
      weights[weight.name] = {DType::kF32, weight.tensor.type.shape.extents(),
                              weight.tensor.data.data()};
    }
    constexpr double kMostBytes = 8.0 * (1 << 30);
    if (facts.bytes > kMostBytes) {
      LOG(WARNING) << "model.onnx: too large to be asked before it is stored: whether its answers "
                      "depend on padding is not known";
    } else {
      LEPTON_RETURN_IF_ERROR(ProbeTexts(model, facts.data, weights));
    }
  }
  LEPTON_ASSIGN_OR_RETURN(const std::string file,
                          safetensors::Serialize(views, {{"format", "lepton"}}));
  LEPTON_ASSIGN_OR_RETURN(manifest.weights, objects.Put(file));
  manifest.weights_sha256 = safetensors::WeightsDigest(views);
  LEPTON_ASSIGN_OR_RETURN(manifest.files[kOnnxGraphFile], objects.Put(apart.graph));
  const std::string text = storage::ToText(manifest);
  LEPTON_RETURN_IF_ERROR(storage::ModelManifestFromJson(text).status().WithContext("model.onnx"));
  LEPTON_ASSIGN_OR_RETURN(stored.manifest, objects.Put(text));
  stored.objects = {stored.manifest, manifest.weights, manifest.files[kOnnxGraphFile]};
  return stored;
}

Result<onnx::ExportedModel> ExportOnnx(const storage::ObjectStore& objects,
                                       const storage::Digest& manifest, int64_t inline_bytes,
                                       const std::string& data_file) {
  LEPTON_ASSIGN_OR_RETURN(const StoredModel stored, LoadModel(objects, manifest));
  if (stored.model.arch != "onnx") return ExportGraph(stored, inline_bytes, data_file);
  LEPTON_ASSIGN_OR_RETURN(const FloatWeights floats, FloatsOf(stored));
  const auto& weights = floats.views;
  if (stored.model.onnx_graph == nullptr) return DataLoss("the model's graph is not stored");
  onnx::PutTogetherOptions options;
  options.normalize = NormalizationOf(stored.manifest);
  options.metadata = Describe(stored.manifest);
  options.inline_bytes = inline_bytes;
  options.data_file = data_file;
  return onnx::PutTogether(*stored.model.onnx_graph, weights, options);
}

}  // namespace lepton::worker
