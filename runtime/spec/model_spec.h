// What a job trains or evaluates: an architecture and all its sizes. A size of 0 means that the
// data, or the style, decides; nn::ResolveModel fills them in, and a stored model has all of them.
// Threads: plain values.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::spec {

// Rotary positions: frequencies, and how they are changed for longer texts (runtime/ops/rope.h).
struct RopeSpec {
  double base = 10000;
  // none | linear | llama3 | yarn | longrope | dynamic. The last is none up to the model's context,
  // and elsewhere only beyond it other than that.
  std::string scaling = "none";
  double factor = 1;           // of longrope only its attention_factor follows from it
  double low_freq_factor = 1;  // llama3
  double high_freq_factor = 4;
  int64_t original_context = 8192;  // llama3, yarn, longrope: of the model before
  double attention_factor = 0;      // yarn, longrope; 0: AttentionFactor
  double beta_fast = 32;            // yarn
  double beta_slow = 1;
  bool truncate = true;
  // longrope: for each pair of a head: of models whose context is at most the original, and of
  // others.
  std::vector<double> short_factor, long_factor;

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

// What cosines and sines are multiplied with: attention_factor, or what the scaling's paper says of
// `factor`.
double AttentionFactor(const RopeSpec& rope);

// arch: transformer. A style is a family of public models: it fixes what the family fixes (norms,
// positions, names and layouts of parameters), so that a model of its kind can be exchanged with
// other programs, and gives the defaults of the rest.
struct TransformerSpec {
  std::string style = "gpt2";  // kTransformerStyles
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t kv_heads = 0;   // 0: heads. Fewer: neighbours share keys and values
  int64_t head_size = 0;  // 0: width / heads
  int64_t width = 128;
  int64_t mlp_width = 0;   // 0: 4 * width; with a gated MLP 8 / 3 of it, in steps of 32
  int64_t context = 0;     // longest text; 0: the data's
  int64_t vocabulary = 0;  // 0: the data's
  double norm_epsilon = 1e-5;
  bool tied = true;             // language-model head = embedding
  bool attention_bias = false;  // llama, qwen3: biases of the attention's projections
  bool mlp_bias = false;        // llama
  int64_t window = 0;           // mistral, qwen2, qwen3: tokens that a token sees; 0: all
  int64_t window_from = 0;      // the first layer that has the window
  RopeSpec rope;                // llama, mistral, qwen2, qwen3
  int64_t token_types = 0;      // bert
  bool pooler = false;          // bert: a dense layer with tanh on the first token
  std::string pool = "last";    // what a row's answer is read from: first | mean | last
  bool normalize = false;       // head none: a text's answer has length 1
};
inline constexpr const char* kTransformerStyles[] = {"gpt2",  "llama", "mistral",   "qwen2",
                                                     "qwen3", "bert",  "distilbert"};

// arch: resnet18, resnet34, resnet50.
struct ResnetSpec {
  std::string stem = "auto";  // standard: 7x7 stride 2 and a pool; small: 3x3; auto: by the images
  std::string block = "basic";  // basic | bottleneck
  int64_t stem_width = 64;
  std::vector<int64_t> widths = {64, 128, 256, 512};  // of the stages' outputs
  std::vector<int64_t> depths = {2, 2, 2, 2};
  double statistics_momentum = 0.1;  // how fast running statistics follow
};

// arch: vit.
struct VitSpec {
  int64_t patch = 0;  // 0: the largest of 16, 8, 4, 2 that leaves at least 4 x 4 patches
  int64_t layers = 6;
  int64_t heads = 4;
  int64_t width = 128;
  int64_t mlp_width = 0;  // 0: 4 * width
  double norm_epsilon = 1e-12;
  bool qkv_bias = true;
  bool pooler = false;  // head none: a dense layer with tanh on the class token
};

// Sizes of images; 0: the data's.
struct ImageSpec {
  int64_t channels = 0, height = 0, width = 0;
};

struct ModelSpec {
  std::string arch = "mlp";  // mlp | resnet18 | resnet34 | resnet50 | vit | transformer | onnx
  std::vector<int64_t> hidden = {128, 64};  // mlp: 1..65536 wide, at most 64 layers
  // relu | gelu | gelu_tanh | silu; tanh and sigmoid for an mlp.
  std::string activation = "relu";
  double dropout = 0;         // [0, 1)
  bool layer_norm = false;    // mlp
  std::string head = "auto";  // auto: what the task asks for; none: the last hidden state
  TransformerSpec transformer;
  ResnetSpec resnet;
  VitSpec vit;
  ImageSpec image;  // resnet, vit
  // The path of an ONNX file; only in what users write: it becomes a stored model of arch onnx.
  std::string onnx;
  // The path of a Hugging Face folder; only in what users write: it becomes a stored model, whose
  // architecture the job has. Of the other fields only dropout may be given; 0: the folder's.
  std::string hf;
  // "name@version", or file:///folder that a run left: start from (train), evaluate or ask it.
  std::string from;
  // arch onnx: the stored graph, without its weights (runtime/formats/onnx/model_file.h). Not a
  // field of documents: whoever loads the model puts it here.
  std::shared_ptr<const std::string> onnx_graph;
};

// The defaults of an architecture, and of a style of transformer ("" for the default one). Those of
// an unknown one are those of "mlp".
ModelSpec DefaultModel(const std::string& arch, const std::string& style = "");

bool IsResnet(const std::string& arch);

// Whether nothing is said of the architecture: fields that name another model, and dropout, aside.
bool SaysNoArchitecture(const ModelSpec& model);

// From and to the JSON of a spec's `model`; fields of another architecture are refused.
Result<ModelSpec> ModelSpecFromJson(const nlohmann::json& document);
nlohmann::json ModelSpecToJson(const ModelSpec& model);

}  // namespace lepton::spec
