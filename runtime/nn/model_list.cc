#include "runtime/nn/model_list.h"

#include <algorithm>

#include "runtime/nn/mlp.h"
#include "runtime/nn/onnx_model.h"
#include "runtime/nn/resnet.h"
#include "runtime/nn/transformer.h"
#include "runtime/nn/vit.h"

namespace lepton::nn {
namespace {

using spec::ModelSpec;

struct Architecture {
  std::string_view name;
  Result<ModelSpec> (*resolve)(const ModelSpec& model, const DataShape& data);
  Result<Signature> (*signature)(const ModelSpec& resolved, const DataShape& data);
  Result<graph::ValueId> (*build)(ModelBuilder&, const Signature&, const ModelSpec&,
                                  std::span<const graph::ValueId> inputs);
};

std::string_view KindName(DataShape::Kind kind) {
  if (kind == DataShape::Kind::kImages) return "images";
  return kind == DataShape::Kind::kTokens ? "texts" : "rows of features";
}

Status ExpectKind(const ModelSpec& model, const DataShape& data, DataShape::Kind wanted) {
  if (data.kind == wanted) return Status::Ok();
  return InvalidArgument("model.arch: " + model.arch + " takes " + std::string(KindName(wanted)) +
                         ", but the data has " + std::string(KindName(data.kind)));
}

Result<ModelSpec> ResolveNothing(const ModelSpec& model, const DataShape&) {
  return model;
}

Result<Signature> MlpSignature(const ModelSpec& model, const DataShape& data) {
  LEPTON_RETURN_IF_ERROR(ExpectKind(model, data, DataShape::Kind::kFeatures));
  return Signature::Features(data.features, data.outputs);
}

Result<ModelSpec> ResolveTexts(const ModelSpec& model, const DataShape& data) {
  LEPTON_RETURN_IF_ERROR(ExpectKind(model, data, DataShape::Kind::kTokens));
  return ResolveTransformer(model, data.vocabulary, data.context);
}

Result<Signature> TextsSignature(const ModelSpec& model, const DataShape& data) {
  const bool causal = data.per_token && model.transformer.style != "bert" &&
                      model.transformer.style != "distilbert";
  const bool next_token = causal && model.head == "auto";
  return TransformerSignature(model, next_token ? model.transformer.vocabulary : data.outputs,
                              data.per_token);
}

template <Result<ModelSpec> (*resolve)(const ModelSpec&, int64_t, int64_t, int64_t)>
Result<ModelSpec> ResolveImages(const ModelSpec& model, const DataShape& data) {
  LEPTON_RETURN_IF_ERROR(ExpectKind(model, data, DataShape::Kind::kImages));
  return resolve(model, data.channels, data.height, data.width);
}

Result<Signature> ImagesSignature(const ModelSpec& model, const DataShape& data) {
  return ImageSignature(model.image, data.outputs);
}

constexpr Architecture kArchitectures[] = {
    {"mlp", &ResolveNothing, &MlpSignature, &BuildMlp},
    {"resnet18", &ResolveImages<&ResolveResnet>, &ImagesSignature, &BuildResnet},
    {"resnet34", &ResolveImages<&ResolveResnet>, &ImagesSignature, &BuildResnet},
    {"resnet50", &ResolveImages<&ResolveResnet>, &ImagesSignature, &BuildResnet},
    {"vit", &ResolveImages<&ResolveVit>, &ImagesSignature, &BuildVit},
    {"onnx", &ResolveNothing, &OnnxSignature, &BuildOnnx},
    {"transformer", &ResolveTexts, &TextsSignature, &BuildTransformer},
};

Result<const Architecture*> FindArchitecture(const ModelSpec& model) {
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == model.arch) return &architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return InvalidArgument("model.arch: '" + model.arch + "' is unknown: must be one of " + known);
}

Status CheckInputs(const Signature& signature) {
  for (const InputSpec& input : signature.inputs) {
    const auto& extents = input.type.shape.extents();
    if (std::find(extents.begin(), extents.end(), 0) != extents.end()) {
      return InvalidArgument("model: input " + input.name + " is " + input.type.ToString() +
                             "; must have at least one feature");
    }
  }
  return Status::Ok();
}

}  // namespace

Result<ModelSpec> ResolveModel(const ModelSpec& model, const DataShape& data) {
  LEPTON_ASSIGN_OR_RETURN(const Architecture* const architecture, FindArchitecture(model));
  return architecture->resolve(model, data);
}

int64_t FeatureWidth(const ModelSpec& model) {
  if (model.arch == "transformer") return model.transformer.width;
  if (model.arch == "vit") return model.vit.width;
  return spec::IsResnet(model.arch) && !model.resnet.widths.empty() ? model.resnet.widths.back()
                                                                    : 0;
}

Result<Signature> MakeSignature(const ModelSpec& model, const DataShape& data) {
  LEPTON_ASSIGN_OR_RETURN(const Architecture* const architecture, FindArchitecture(model));
  LEPTON_ASSIGN_OR_RETURN(const ModelSpec resolved, architecture->resolve(model, data));
  return architecture->signature(resolved, data);
}

Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const ModelSpec& model, std::span<const graph::ValueId> inputs) {
  if (signature.outputs < 1) return InvalidArgument("model: must have at least one output");
  LEPTON_RETURN_IF_ERROR(CheckInputs(signature));
  LEPTON_ASSIGN_OR_RETURN(const Architecture* const architecture, FindArchitecture(model));
  if (builder.tensor().divided() && model.arch != "transformer") {
    return InvalidArgument("parallel.tensor: divides layers of arch transformer only; with " +
                           model.arch + " it must be 1");
  }
  LEPTON_ASSIGN_OR_RETURN(const graph::ValueId logits,
                          architecture->build(builder, signature, model, inputs));
  builder.Place();
  return logits;
}

}  // namespace lepton::nn
