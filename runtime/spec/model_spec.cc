#include "runtime/spec/model_spec.h"

#include <cmath>

#include "runtime/base/json.h"
#include "runtime/spec/job_spec_fields.h"

namespace lepton::spec {
namespace {

using nlohmann::json;

// What the public models of each family have.
void SetStyle(const std::string& style, ModelSpec& model) {
  TransformerSpec& t = model.transformer;
  t.style = style;
  model.activation = "gelu_tanh";
  if (style == "gpt2") return;
  if (style == "bert" || style == "distilbert") {
    model.activation = "gelu";
    t.norm_epsilon = 1e-12;
    t.tied = false;
    t.token_types = style == "bert" ? 2 : 0;
    t.pooler = style == "bert";
    t.pool = "first";
    return;
  }
  model.activation = "silu";
  t.tied = false;
  t.norm_epsilon = style == "llama" || style == "mistral" ? 1e-5 : 1e-6;
  if (style == "qwen2" || style == "qwen3") t.rope.base = 1e6;
}

void SetResnet(const std::string& arch, ModelSpec& model) {
  if (arch != "resnet18") model.resnet.depths = {3, 4, 6, 3};
  if (arch != "resnet50") return;
  model.resnet.block = "bottleneck";
  model.resnet.widths = {256, 512, 1024, 2048};
}

std::string TextOf(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

double AttentionFactor(const RopeSpec& rope) {
  const bool scaled = rope.scaling == "yarn" || rope.scaling == "longrope";
  if (scaled && rope.attention_factor != 0) return rope.attention_factor;
  if (!scaled || rope.factor <= 1) return 1;
  if (rope.scaling == "yarn") return 0.1 * std::log(rope.factor) + 1;
  return std::sqrt(1 + std::log(rope.factor) / std::log(rope.original_context));
}

bool IsResnet(const std::string& arch) {
  return arch == "resnet18" || arch == "resnet34" || arch == "resnet50";
}

ModelSpec DefaultModel(const std::string& arch, const std::string& style) {
  ModelSpec model;
  if (arch == "transformer") {
    model.arch = arch;
    SetStyle(style.empty() ? "gpt2" : style, model);
  } else if (IsResnet(arch)) {
    model.arch = arch;
    SetResnet(arch, model);
  } else if (arch == "onnx") {
    model.arch = arch;
  } else if (arch == "vit") {
    model.arch = arch;
    model.activation = "gelu";
  }
  return model;
}

ModelSpec ModelDefaultsFor(const json& model) {
  if (!model.is_object()) return {};
  const std::string arch = TextOf(model, "arch");
  const bool file = arch.empty() && model.contains("onnx");
  return DefaultModel(file ? "onnx" : arch, TextOf(model, "style"));
}

bool SaysNoArchitecture(const ModelSpec& model) {
  ModelSpec rest = model;
  rest.from.clear();
  rest.hf.clear();
  rest.dropout = 0;
  return ModelSpecToJson(rest) == ModelSpecToJson(ModelSpec());
}

Result<ModelSpec> ModelSpecFromJson(const json& document) {
  ModelSpec model = ModelDefaultsFor(document);
  LEPTON_RETURN_IF_ERROR(
      ReadFields(document, [&](FieldVisitor& v) { Visit(v, model, /*all=*/false); }));
  return model;
}

json ModelSpecToJson(const ModelSpec& model) {
  ModelSpec copy = model;
  return WriteFields([&](FieldVisitor& v) { Visit(v, copy, /*all=*/false); });
}

}  // namespace lepton::spec
