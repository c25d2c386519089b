#include "runtime/nn/vit.h"

#include "runtime/nn/resnet.h"
#include "runtime/nn/transformer.h"

namespace lepton::nn {
namespace {

using graph::ValueId;
using Ints = std::vector<int64_t>;

constexpr double kVitDeviation = 0.02;  // of first weights

Status VitField(const std::string& field, const std::string& what) {
  return InvalidArgument("model." + field + ": " + what);
}

TransformerConfig EncoderOf(const spec::ModelSpec& model) {
  const spec::VitSpec& v = model.vit;
  TransformerConfig c;
  c.layers = v.layers;
  c.heads = c.kv_heads = v.heads;
  c.width = v.width;
  c.head_size = v.width / v.heads;
  c.mlp_width = v.mlp_width;
  c.causal = false;
  c.norm_epsilon = v.norm_epsilon;
  c.positions = TransformerConfig::Positions::kNone;  // added to the patches before
  c.activation = model.activation;
  c.qkv_bias = v.qkv_bias;
  c.dropout = model.dropout;
  return c;
}

const TransformerNames& VitNames() {
  static const auto* const names = [] {
    auto* n = new TransformerNames;
    n->body = "vit.";
    n->layer = "encoder.layer.";
    n->attention_norm = "layernorm_before";
    n->query = "attention.attention.query";
    n->key = "attention.attention.key";
    n->value = "attention.attention.value";
    n->out = "attention.output.dense";
    n->mlp_norm = "layernorm_after";
    n->up = "intermediate.dense";
    n->down = "output.dense";
    n->final_norm = "layernorm";
    return n;
  }();
  return *names;
}

int64_t Patches(const spec::ModelSpec& model) {
  return (model.image.height / model.vit.patch) * (model.image.width / model.vit.patch);
}

// [batch, patches + 1, width]
Result<ValueId> Embeddings(ModelBuilder& b, const spec::ModelSpec& model, ValueId pixels) {
  const spec::VitSpec& v = model.vit;
  graph::Graph& g = b.graph();
  const FirstValues first = FirstValues::Normal(kVitDeviation);
  const ValueId cls = b.Parameter("vit.embeddings.cls_token", {1, 1, v.width}, first);
  const ValueId positions =
      b.Parameter("vit.embeddings.position_embeddings", {1, Patches(model) + 1, v.width}, first);
  const std::string name = "vit.embeddings.patch_embeddings.projection";
  const ValueId weight =
      b.Parameter(name + ".weight", {v.width, model.image.channels, v.patch, v.patch}, first);
  const ValueId bias = b.Parameter(name + ".bias", {v.width}, FirstValues::Constant(0));
  LEPTON_ASSIGN_OR_RETURN(ValueId x,
                          b.Conv2d(name, pixels, weight, {{"strides", Ints{v.patch, v.patch}}}));
  LEPTON_ASSIGN_OR_RETURN(
      x, g.Add("reshape", {x}, {{"shape", Ints{Shape::kBatch, v.width, Patches(model)}}}));
  LEPTON_ASSIGN_OR_RETURN(x, g.Add("transpose", {x}, {{"perm", Ints{0, 2, 1}}}));
  LEPTON_ASSIGN_OR_RETURN(x, g.Add("bias_add", {x, bias}));
  LEPTON_ASSIGN_OR_RETURN(
      const ValueId one,
      g.Add("slice", {x}, {{"axis", int64_t{1}}, {"begin", int64_t{0}}, {"end", int64_t{1}}}));
  LEPTON_ASSIGN_OR_RETURN(const ValueId row, g.Add("broadcast_to", {cls, one}));
  LEPTON_ASSIGN_OR_RETURN(x, g.Add("concat", {row, x}, {{"axis", int64_t{1}}}));
  LEPTON_ASSIGN_OR_RETURN(x, g.Add("add", {x, positions}));
  return b.Dropout("embeddings", x, model.dropout);
}

}  // namespace

Result<spec::ModelSpec> ResolveVit(const spec::ModelSpec& model, int64_t channels, int64_t height,
                                   int64_t width) {
  spec::ModelSpec resolved = model;
  spec::VitSpec& v = resolved.vit;
  LEPTON_RETURN_IF_ERROR(ResolveImage(channels, height, width, resolved.image));
  const spec::ImageSpec& image = resolved.image;
  for (const int64_t patch : {16, 8, 4, 2}) {
    const bool divides = image.height % patch == 0 && image.width % patch == 0;
    if (v.patch == 0 && divides && std::min(image.height, image.width) / patch >= 4)
      v.patch = patch;
  }
  if (v.patch < 1 || image.height % v.patch != 0 || image.width % v.patch != 0) {
    return VitField("patch", std::to_string(v.patch) + " must divide the images' height, " +
                                 std::to_string(image.height) + ", and width, " +
                                 std::to_string(image.width));
  }
  if (v.layers < 1) return VitField("layers", std::to_string(v.layers) + ": must be at least 1");
  if (v.heads < 1 || v.width < 1 || v.width % v.heads != 0) {
    return VitField("width", std::to_string(v.width) + " must be a multiple of heads, " +
                                 std::to_string(v.heads));
  }
  if (v.mlp_width == 0) v.mlp_width = 4 * v.width;
  return resolved;
}

Result<ValueId> BuildVit(ModelBuilder& builder, const Signature& signature,
                         const spec::ModelSpec& model, std::span<const ValueId> inputs) {
  LEPTON_ASSIGN_OR_RETURN(const spec::ModelSpec resolved, ResolveVit(model, 0, 0, 0));
  if (inputs.size() != 1 || signature.inputs[0].type.shape.rank() != 4) {
    return InvalidArgument("model.arch: vit takes images only");
  }
  const int64_t width = resolved.vit.width;
  graph::Graph& g = builder.graph();
  LEPTON_ASSIGN_OR_RETURN(ValueId x, Embeddings(builder, resolved, inputs[0]));
  LEPTON_ASSIGN_OR_RETURN(x, BuildTransformerLayers(builder, EncoderOf(resolved), VitNames(), x));
  LEPTON_ASSIGN_OR_RETURN(x, g.Add("pool_tokens", {x}, {{"kind", "first"}}));
  builder.BeginHead();
  const ModelBuilder::LinearShape dense{
      .in = width, .out = width, .transposed = true, .first = FirstValues::Normal(kVitDeviation)};
  if (resolved.head == "none") {
    if (signature.outputs != width) {
      return VitField("head", "none gives " + std::to_string(width) + " outputs, the width; not " +
                                  std::to_string(signature.outputs));
    }
    if (!resolved.vit.pooler) return x;
    LEPTON_ASSIGN_OR_RETURN(x, builder.Linear("vit.pooler.dense", x, dense));
    return builder.Activation("tanh", "vit.pooler", x);
  }
  LEPTON_ASSIGN_OR_RETURN(x, builder.Dropout("head", x, resolved.dropout));
  ModelBuilder::LinearShape head = dense;
  head.out = signature.outputs;
  return builder.Linear("classifier", x, head);
}

}  // namespace lepton::nn
