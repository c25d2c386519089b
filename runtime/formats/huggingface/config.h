// config.json of a Hugging Face model folder, as an architecture of ours and back. Reading is
// strict: an unknown model_type, an option that is not known, or a value that our models do not
// compute is refused by its name; what only matters to training or to text generation elsewhere is
// passed over by name (config_fields.cc). Bytes from outside are bounded and never trusted.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/model_spec.h"

namespace lepton::huggingface {

struct Config {
  enum class Task : uint8_t {
    kBase,  // no head, or one that is not used: hidden states
    kLanguageModel,
    kTextClassification,
    kTokenClassification,
    kImageClassification,
  };

  std::string model_type;    // "bert"
  std::string architecture;  // "BertForSequenceClassification"
  Task task = Task::kBase;
  // All sizes but those of a resnet's images, which config.json does not have.
  spec::ModelSpec model;
  std::vector<std::string> labels;  // of a classification, by index; no two are alike
  // "lepton_classes": the names of both classes of a binary model of ours, of which the folder's
  // label is the second; empty elsewhere.
  std::vector<std::string> classes;
  // A model of sentence-transformers: the modules behind its body make a text's numbers, and cut
  // texts after so many tokens (0: after the context).
  bool sentence = false;
  int64_t text_tokens = 0;
  std::string problem_type;  // "", regression, single_label_classification,
                             // multi_label_classification
};

inline constexpr size_t kMaxConfigBytes = 1 << 20;

// What the class of not being `label` is called where nobody named it.
std::string OtherClass(const std::string& label);

// kInvalidArgument: "config.json: rope_scaling.rope_type: mrope is not supported: must be ...".
Result<Config> ParseConfig(std::string_view json);

// The config.json of a model of ours, such that its family's public code loads it. `original`: the
// config.json that the model came from, or empty: what it says besides is kept. `torch_dtype`: what
// the weights are stored as. `labels`: of a multi_label_classification one, or both classes of a
// binary model.
// kFailedPrecondition, with a reason, for a model that no family has: an mlp.
Result<std::string> WriteConfig(const spec::ModelSpec& model, Config::Task task,
                                const std::vector<std::string>& labels,
                                const std::string& problem_type, std::string_view original = {},
                                std::string_view torch_dtype = "float32");

// The name that our models give to a tensor of such a folder: files of base models leave out the
// body's prefix, old ones say gamma and beta. Empty for a tensor that is not a weight of the model:
// a buffer that follows from the config, or a head or a pooler that is not used.
std::string CanonicalTensorName(const Config& config, std::string_view name);

}  // namespace lepton::huggingface
