// Residual networks and vision transformers.
#include "runtime/formats/huggingface/family.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::ModelSpec;
using Task = Config::Task;

bool IsStandardResnet(const ModelSpec& model) {
  return spec::IsResnet(model.arch) && model.resnet.stem != "small";
}

bool IsSmallResnet(const ModelSpec& model) {
  return spec::IsResnet(model.arch) && model.resnet.stem == "small";
}

ModelSpec ResnetDefaults() {
  ModelSpec model = spec::DefaultModel("resnet50");
  model.resnet.stem = "standard";
  model.image.channels = 3;
  return model;
}

ModelSpec SmallResnetDefaults() {
  ModelSpec model = ResnetDefaults();
  model.resnet.stem = "small";
  return model;
}

void ReadResnet(ConfigFields& fields, ModelSpec& model) {
  spec::ResnetSpec& r = model.resnet;
  fields.Integer("num_channels", model.image.channels, 1, 4096);
  fields.Integer("embedding_size", r.stem_width, 1, 65536);
  fields.IntegerList("hidden_sizes", r.widths, 1, 65536, 16);
  fields.IntegerList("depths", r.depths, 1, 1024, 16);
  fields.Activation("hidden_act", model.activation);
  fields.Text("layer_type", r.block);
  if (r.block != "basic" && r.block != "bottleneck") {
    fields.Fail("layer_type", r.block + " is not supported: must be basic or bottleneck");
  }
  if (r.widths.size() != r.depths.size()) {
    fields.Fail("depths", "must have as many stages as hidden_sizes");
  }
  fields.MustBe("downsample_in_first_stage", false);
  fields.MustBe("downsample_in_bottleneck", false);
  fields.PassOver({"out_features", "out_indices", "stage_names"});
  model.arch = r.block == "bottleneck"                        ? "resnet50"
               : r.depths == std::vector<int64_t>{2, 2, 2, 2} ? "resnet18"
                                                              : "resnet34";
}

json WriteResnet(const ModelSpec& model) {
  const spec::ResnetSpec& r = model.resnet;
  return {{"num_channels", model.image.channels},
          {"embedding_size", r.stem_width},
          {"hidden_sizes", r.widths},
          {"depths", r.depths},
          {"layer_type", r.block},
          {"hidden_act", ActivationTo(model.activation)},
          {"downsample_in_first_stage", false}};
}

bool IsVit(const ModelSpec& model) {
  return model.arch == "vit";
}

ModelSpec VitDefaults() {
  ModelSpec model = spec::DefaultModel("vit");
  model.image = {3, 224, 224};
  spec::VitSpec& v = model.vit;
  v.patch = 16;
  v.width = 768;
  v.layers = v.heads = 12;
  v.mlp_width = 3072;
  v.pooler = true;
  return model;
}

void ReadVit(ConfigFields& fields, ModelSpec& model) {
  spec::VitSpec& v = model.vit;
  fields.Integer("hidden_size", v.width, 1, 65536);
  fields.Integer("num_hidden_layers", v.layers, 1, 1024);
  fields.Integer("num_attention_heads", v.heads, 1, 4096);
  fields.Integer("intermediate_size", v.mlp_width, 1, 1 << 20);
  fields.Integer("patch_size", v.patch, 1, 4096);
  fields.Integer("num_channels", model.image.channels, 1, 4096);
  const json* size = fields.Take("image_size");
  if (size != nullptr && size->is_array()) {
    std::vector<int64_t> sides;
    fields.IntegerList("image_size", sides, 1, 65536, 2);
    if (sides.size() != 2) return fields.Fail("image_size", "is not one or two whole numbers");
    model.image.height = sides[0];
    model.image.width = sides[1];
  } else {
    fields.Integer("image_size", model.image.height, 1, 65536);
    model.image.width = model.image.height;
  }
  fields.Number("layer_norm_eps", v.norm_epsilon, 1e-20, 1);
  fields.Number("hidden_dropout_prob", model.dropout, 0, 0.999);
  fields.Activation("hidden_act", model.activation);
  fields.Bool("qkv_bias", v.qkv_bias);
  fields.MustBe("pooler_act", "tanh");
  if (const json* output = fields.Take("pooler_output_size");
      output != nullptr && *output != v.width) {
    fields.Fail("pooler_output_size", "is not supported: must be hidden_size");
  }
  fields.PassOver({"encoder_stride"});
}

json WriteVit(const ModelSpec& model) {
  const spec::VitSpec& v = model.vit;
  const bool square = model.image.height == model.image.width;
  return {{"hidden_size", v.width},
          {"num_hidden_layers", v.layers},
          {"num_attention_heads", v.heads},
          {"intermediate_size", v.mlp_width},
          {"patch_size", v.patch},
          {"num_channels", model.image.channels},
          {"image_size",
           square ? json(model.image.height) : json({model.image.height, model.image.width})},
          {"layer_norm_eps", v.norm_epsilon},
          {"hidden_dropout_prob", model.dropout},
          {"attention_probs_dropout_prob", 0.0},
          {"hidden_act", ActivationTo(model.activation)},
          {"qkv_bias", v.qkv_bias}};
}

}  // namespace

Family ResnetFamily() {
  Family f;
  f.model_type = "resnet";
  f.classes = {{"ResNetModel", Task::kBase},
               {"ResNetForImageClassification", Task::kImageClassification}};
  f.owns = &IsStandardResnet;
  f.defaults = &ResnetDefaults;
  f.read = &ReadResnet;
  f.write = &WriteResnet;
  f.body = "resnet.";
  f.heads = {"classifier."};
  f.buffers = {".num_batches_tracked"};
  return f;
}

Family SmallResnetFamily() {
  Family f = ResnetFamily();
  f.model_type = "lepton_resnet";
  f.owns = &IsSmallResnet;
  f.defaults = &SmallResnetDefaults;
  return f;
}

Family VitFamily() {
  Family f;
  f.model_type = "vit";
  f.classes = {{"ViTModel", Task::kBase},
               {"ViTForImageClassification", Task::kImageClassification}};
  f.owns = &IsVit;
  f.defaults = &VitDefaults;
  f.read = &ReadVit;
  f.write = &WriteVit;
  f.body = "vit.";
  f.heads = {"classifier."};
  f.pooler = "vit.pooler.";
  return f;
}

}  // namespace lepton::huggingface
