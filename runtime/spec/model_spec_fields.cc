#include "runtime/spec/job_spec_fields.h"

namespace lepton::spec {
namespace {

constexpr int64_t kMaxWidth = 65536;
constexpr int64_t kMaxLayers = 1024;
constexpr Range kEpsilon{.min = 0, .max = 1, .above_min = true};

void VisitMlp(FieldVisitor& v, ModelSpec& s) {
  v.IntegerList("hidden", s.hidden, 1, kMaxWidth, 64, "mlp: widths of the hidden layers");
  v.Bool("layer_norm", s.layer_norm, "mlp: normalise each hidden layer");
}

void VisitRope(FieldVisitor& v, RopeSpec& s) {
  v.BeginObject("rope", "transformer: rotary positions");
  v.Number("base", s.base, {.min = 0, .max = 1e12, .above_min = true}, "of the wavelengths");
  v.Choice("scaling", s.scaling, {"none", "linear", "llama3", "yarn", "longrope", "dynamic"},
           "for longer texts");
  v.Number("factor", s.factor, {.min = 0, .max = 1e6, .above_min = true}, "of the scaling");
  v.Number("low_freq_factor", s.low_freq_factor, {.min = 0, .max = 1e6, .above_min = true},
           "llama3");
  v.Number("high_freq_factor", s.high_freq_factor, {.min = 0, .max = 1e6, .above_min = true},
           "llama3; above low_freq_factor");
  v.Integer("original_context", s.original_context, 1, 1 << 30, "llama3, yarn, longrope");
  constexpr Range kPositive{.min = 0, .max = 1e6, .above_min = true};
  v.Number("attention_factor", s.attention_factor, {.min = 0, .max = 1e6},
           "yarn, longrope: of cosines and sines; 0: by factor");
  v.Number("beta_fast", s.beta_fast, kPositive,
           "yarn: pairs that turn more often in original_context stay; at least beta_slow");
  v.Number("beta_slow", s.beta_slow, kPositive,
           "yarn: pairs that turn less often in original_context are slowed down by factor");
  v.Bool("truncate", s.truncate, "yarn: from a whole pair to a whole pair in between");
  v.NumberList("short_factor", s.short_factor, kPositive, kMaxWidth / 2,
               "longrope: for each pair of a head, where context is at most original_context");
  v.NumberList("long_factor", s.long_factor, kPositive, kMaxWidth / 2,
               "longrope: for each pair of a head, where context is more than original_context");
  v.EndObject();
}

void VisitTransformer(FieldVisitor& v, TransformerSpec& s) {
  v.Choice("style", s.style, {"gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "distilbert"},
           "transformer: the family of public models that it is one of");
  v.Integer("layers", s.layers, 1, kMaxLayers, "transformer, vit: blocks");
  v.Integer("heads", s.heads, 1, 4096, "transformer, vit: of the attention");
  v.Integer("kv_heads", s.kv_heads, 0, 4096, "transformer: heads of keys and values; 0: heads");
  v.Integer("head_size", s.head_size, 0, kMaxWidth, "transformer: 0: width / heads");
  v.Integer("width", s.width, 1, kMaxWidth, "transformer, vit: of the hidden states");
  v.Integer("mlp_width", s.mlp_width, 0, 1 << 20,
            "transformer, vit: 0: 4 * width, or 8 / 3 of it where the MLP is gated");
  v.Integer("context", s.context, 0, 1 << 30, "transformer: longest text in tokens; 0: the data's");
  v.Integer("vocabulary", s.vocabulary, 0, 1 << 30, "transformer: token ids; 0: the data's");
  v.Number("norm_epsilon", s.norm_epsilon, kEpsilon, "transformer, vit: of the norms");
  v.Bool("tied", s.tied, "transformer: the language-model head is the embedding");
  v.Bool("attention_bias", s.attention_bias, "transformer: llama, qwen3");
  v.Bool("mlp_bias", s.mlp_bias, "transformer: llama");
  v.Integer("window", s.window, 0, 1 << 30,
            "transformer: mistral, qwen2, qwen3: tokens that a token sees; 0: all");
  v.Integer("window_from", s.window_from, 0, kMaxLayers,
            "transformer: the first layer that has the window");
  VisitRope(v, s.rope);
  v.Integer("token_types", s.token_types, 0, 1024, "transformer: bert: kinds of segments");
  v.Bool("pooler", s.pooler, "transformer: bert: a dense layer with tanh on the first token");
  v.Choice("pool", s.pool, {"first", "mean", "last"},
           "transformer: the tokens that the answer for a whole text is read from");
  v.Bool("normalize", s.normalize,
         "transformer: head none: the answer for a whole text is divided by its length");
}

void VisitResnet(FieldVisitor& v, ResnetSpec& s) {
  v.Choice("stem", s.stem, {"auto", "standard", "small"},
           "resnet: standard is 7x7 with stride 2 and a pool, small is 3x3; auto: small for images "
           "of up to 64 x 64");
  v.Choice("block", s.block, {"basic", "bottleneck"}, "resnet: two 3x3, or 1x1, 3x3, 1x1");
  v.Integer("stem_width", s.stem_width, 1, kMaxWidth, "resnet: channels after the stem");
  v.IntegerList("widths", s.widths, 1, kMaxWidth, 16, "resnet: channels after each stage");
  v.IntegerList("depths", s.depths, 1, kMaxLayers, 16, "resnet: blocks of each stage");
  v.Number("statistics_momentum", s.statistics_momentum, {.min = 0, .max = 1, .above_min = true},
           "resnet: how fast the running statistics follow those of the batches");
}

void VisitVit(FieldVisitor& v, VitSpec& s) {
  v.Integer("patch", s.patch, 0, 4096, "vit: 0: by the images");
  v.Integer("layers", s.layers, 1, kMaxLayers, "transformer, vit: blocks");
  v.Integer("heads", s.heads, 1, 4096, "transformer, vit: of the attention");
  v.Integer("width", s.width, 1, kMaxWidth, "transformer, vit: of the hidden states");
  v.Integer("mlp_width", s.mlp_width, 0, 1 << 20, "vit: 0: 4 * width");
  v.Number("norm_epsilon", s.norm_epsilon, kEpsilon, "transformer, vit: of the norms");
  v.Bool("qkv_bias", s.qkv_bias, "vit: biases of queries, keys and values");
  v.Bool("pooler", s.pooler, "vit: head none: a dense layer with tanh on the class token");
}

void VisitImage(FieldVisitor& v, ImageSpec& s) {
  v.BeginObject("image", "resnet, vit: sizes of the images; 0: the data's");
  v.Integer("channels", s.channels, 0, 4096, "");
  v.Integer("height", s.height, 0, kMaxWidth, "in pixels");
  v.Integer("width", s.width, 0, kMaxWidth, "in pixels");
  v.EndObject();
}

// Names the fields of architectures that the model is not of.
class OthersFields final : public FieldVisitor {
 public:
  OthersFields(FieldVisitor& to, std::string why) : to_(to), why_(std::move(why)) {}
  void Number(std::string_view n, double&, Range, std::string_view) override { Tell(n); }
  void Integer(std::string_view n, int64_t&, int64_t, int64_t, std::string_view) override {
    Tell(n);
  }
  void Seed(std::string_view n, uint64_t&, std::string_view) override { Tell(n); }
  void Bool(std::string_view n, bool&, std::string_view) override { Tell(n); }
  void Text(std::string_view n, std::string&, std::string_view) override { Tell(n); }
  void Choice(std::string_view n, std::string&, Choices, std::string_view) override { Tell(n); }
  void Time(std::string_view n, Duration&, Duration, Duration, std::string_view) override {
    Tell(n);
  }
  void OptionalTime(std::string_view n, std::optional<Duration>&, std::string_view) override {
    Tell(n);
  }
  void IntegerList(std::string_view n, std::vector<int64_t>&, int64_t, int64_t, size_t,
                   std::string_view) override {
    Tell(n);
  }
  void NumberList(std::string_view n, std::vector<double>&, Range, size_t,
                  std::string_view) override {
    Tell(n);
  }
  void TextMap(std::string_view n, std::map<std::string, std::string>&, std::string_view) override {
    Tell(n);
  }
  void Space(std::string_view n, std::vector<Dimension>&, std::string_view) override { Tell(n); }
  void BeginObject(std::string_view n, std::string_view, std::string_view) override {
    Tell(n);
    ++depth_;
  }
  void EndObject() override { --depth_; }
  size_t BeginList(std::string_view n, size_t, std::string_view) override {
    Tell(n);
    return 0;
  }
  void BeginItem(size_t) override {}
  void EndItem() override {}
  void EndList() override {}

 private:
  void Tell(std::string_view name) {
    if (depth_ == 0) to_.Elsewhere(name, why_);
  }
  FieldVisitor& to_;
  const std::string why_;
  int depth_ = 0;
};

}  // namespace

void Visit(FieldVisitor& v, ModelSpec& s, bool all) {
  v.Choice("arch", s.arch,
           {"mlp", "resnet18", "resnet34", "resnet50", "vit", "transformer", "onnx"},
           "architecture; onnx: of a model that came as an ONNX file");
  v.Choice("activation", s.activation, {"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"},
           "of the hidden layers; default relu, for a transformer its style's, for a vit gelu");
  v.Number("dropout", s.dropout, {.min = 0, .max = 1, .below_max = true}, "probability");
  v.Choice("head", s.head, {"auto", "none"},
           "auto: what the task asks for; none: the last hidden state itself");
  const bool image = IsResnet(s.arch) || s.arch == "vit";
  struct Group {
    bool own;
    const char* owner;
    void (*visit)(FieldVisitor&, ModelSpec&);
  };
  const Group groups[] = {
      {s.arch == "mlp", "mlp", &VisitMlp},
      {IsResnet(s.arch), "resnet18, resnet34 and resnet50",
       [](FieldVisitor& to, ModelSpec& m) { VisitResnet(to, m.resnet); }},
      {s.arch == "vit", "vit", [](FieldVisitor& to, ModelSpec& m) { VisitVit(to, m.vit); }},
      {s.arch == "transformer", "transformer",
       [](FieldVisitor& to, ModelSpec& m) { VisitTransformer(to, m.transformer); }},
      {image, "resnet18, resnet34, resnet50 and vit",
       [](FieldVisitor& to, ModelSpec& m) { VisitImage(to, m.image); }},
  };
  for (const Group& group : groups) {
    if (group.own || all) group.visit(v, s);
  }
  for (const Group& group : groups) {
    if (group.own || all) continue;
    OthersFields others(v,
                        std::string("belongs to arch ") + group.owner + ", but arch is " + s.arch);
    group.visit(others, s);
  }
  if (s.arch == "onnx" || all) {
    v.Text("onnx", s.onnx, "the path of an ONNX model to start from or to evaluate");
  }
  v.Text("hf", s.hf,
         "the path of a Hugging Face folder to start from or to evaluate; its config.json says the "
         "architecture");
  v.Text(
      "from", s.from,
      "start from, evaluate or ask this model: name@version of a registered one, or file:///... of "
      "a folder that a run or `lepton model pull` left");
}

}  // namespace lepton::spec
