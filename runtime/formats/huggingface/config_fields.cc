#include "runtime/formats/huggingface/config_fields.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/utf8.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;

std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = std::string(Utf8Prefix(text, 57)) + "...";
  return text;
}

struct ActivationName {
  std::string_view theirs, ours;
};
// Per name of ours the usual one of theirs first.
constexpr ActivationName kActivations[] = {
    {"gelu", "gelu"},
    {"gelu_python", "gelu"},
    {"gelu_new", "gelu_tanh"},
    {"relu", "relu"},
    {"gelu_pytorch_tanh", "gelu_tanh"},
    {"gelu_fast", "gelu_tanh"},
    {"silu", "silu"},
    {"swish", "silu"},
    {"tanh", "tanh"},
    {"sigmoid", "sigmoid"},
};

}  // namespace

std::string ActivationFrom(std::string_view theirs) {
  for (const ActivationName& name : kActivations) {
    if (name.theirs == theirs) return std::string(name.ours);
  }
  return "";
}

std::string ActivationTo(std::string_view ours) {
  for (const ActivationName& name : kActivations) {
    if (name.ours == ours) return std::string(name.theirs);
  }
  return "";
}

bool ConfigFields::IsNull(const char* key) const {
  const auto found = object_.find(key);
  return found != object_.end() && found->is_null();
}

const json* ConfigFields::Take(const char* key) {
  taken_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigFields::Fail(const std::string& key, const std::string& what) {
  if (status_.ok()) status_ = InvalidArgument(file_ + ": " + path_ + key + ": " + what);
}

void ConfigFields::Add(const Status& status) {
  if (status_.ok()) status_ = status;
}

void ConfigFields::Integer(const char* key, int64_t& value, int64_t min, int64_t max) {
  const json* found = Take(key);
  if (found == nullptr) return;
  const bool fits =
      found->is_number_integer() &&
      (!found->is_number_unsigned() || found->get<uint64_t>() <= static_cast<uint64_t>(max));
  const int64_t number = fits ? found->get<int64_t>() : 0;
  if (!fits || number < min || number > max) {
    return Fail(key, Shown(*found) + " is not a whole number from " + std::to_string(min) + " to " +
                         std::to_string(max));
  }
  value = number;
}

void ConfigFields::Number(const char* key, double& value, double min, double max) {
  const json* found = Take(key);
  if (found == nullptr) return;
  const double number = found->is_number() ? found->get<double>() : NAN;
  if (!(number >= min && number <= max)) {
    return Fail(key, Shown(*found) + " is not a number from " + json(min).dump() + " to " +
                         json(max).dump());
  }
  value = number;
}

void ConfigFields::Bool(const char* key, bool& value) {
  const json* found = Take(key);
  if (found == nullptr) return;
  if (!found->is_boolean()) return Fail(key, Shown(*found) + " is not true or false");
  value = found->get<bool>();
}

void ConfigFields::Text(const char* key, std::string& value) {
  const json* found = Take(key);
  if (found == nullptr) return;
  if (!found->is_string()) return Fail(key, Shown(*found) + " is not a text");
  value = found->get<std::string>();
}

void ConfigFields::Activation(const char* key, std::string& value) {
  std::string theirs;
  Text(key, theirs);
  if (theirs.empty()) return;
  const std::string ours = ActivationFrom(theirs);
  if (ours.empty()) {
    std::string known;
    for (const ActivationName& name : kActivations) {
      known += (known.empty() ? "" : ", ") + std::string(name.theirs);
    }
    return Fail(key, theirs + " is not supported: must be one of " + known);
  }
  value = ours;
}

void ConfigFields::IntegerList(const char* key, std::vector<int64_t>& values, int64_t min,
                               int64_t max, size_t max_size) {
  const json* found = Take(key);
  if (found == nullptr) return;
  if (!found->is_array() || found->empty() || found->size() > max_size) {
    return Fail(key, Shown(*found) + " is not a list of 1 to " + std::to_string(max_size) +
                         " whole numbers");
  }
  std::vector<int64_t> numbers;
  for (const json& item : *found) {
    const bool fits =
        item.is_number_integer() && item.get<int64_t>() >= min && item.get<int64_t>() <= max;
    if (!fits) {
      return Fail(key, Shown(item) + " is not a whole number from " + std::to_string(min) + " to " +
                           std::to_string(max));
    }
    numbers.push_back(item.get<int64_t>());
  }
  values = std::move(numbers);
}

void ConfigFields::NumberList(const char* key, std::vector<double>& values, double min, double max,
                              size_t size) {
  const json* found = Take(key);
  if (found == nullptr) return;
  const auto fits = [&](const json& item) {
    return item.is_number() && item.get<double>() >= min && item.get<double>() <= max;
  };
  if (!found->is_array() || found->size() != size) {
    const std::string count =
        found->is_array() ? "has " + std::to_string(found->size()) + " items" : Shown(*found);
    return Fail(key, count + "; must be a list of " + std::to_string(size) + " numbers");
  }
  for (const json& item : *found) {
    if (fits(item)) continue;
    return Fail(
        key, Shown(item) + " is not a number from " + json(min).dump() + " to " + json(max).dump());
  }
  values = found->get<std::vector<double>>();
}

void ConfigFields::Require(const char* key) {
  if (Take(key) == nullptr) Fail(key, "is missing");
}

void ConfigFields::MustBe(const char* key, const json& wanted) {
  const json* found = Take(key);
  if (found == nullptr || *found == wanted) return;
  Fail(key, Shown(*found) + " is not supported: must be " + Shown(wanted));
}

void ConfigFields::PassOver(std::initializer_list<const char*> keys) {
  for (const char* key : keys) taken_.insert(key);
}

Status ConfigFields::Finish() {
  for (const auto& [key, value] : object_.items()) {
    // Off is what a model without the option does.
    const bool off = value.is_null() || value == false;
    if (off || taken_.contains(key)) continue;
    Fail(key, "is not known, and may change what the model computes: remove it if it does not");
  }
  return status_;
}

void PassOverCommonOptions(ConfigFields& fields) {
  // About the file and the software.
  fields.PassOver({"_name_or_path", "_commit_hash", "_attn_implementation",
                   "_attn_implementation_autoset", "model_type", "architectures",
                   "transformers_version", "torch_dtype", "dtype", "torchscript", "use_cache",
                   "unsloth_version", "unsloth_fixed", "finetuning_task", "tokenizer_class",
                   "gradient_checkpointing"});
  // What forward passes return, and how they are cut into pieces.
  fields.PassOver({"return_dict", "output_attentions", "output_hidden_states", "output_past",
                   "use_return_dict", "chunk_size_feed_forward", "pretraining_tp",
                   "keys_to_ignore_at_inference"});
  // Of training: first weights, dropout of attention probabilities, losses.
  fields.PassOver({"initializer_range", "initializer_factor", "attention_dropout",
                   "attention_probs_dropout_prob", "attn_pdrop", "problem_type", "num_labels",
                   "id2label", "label2id", "_num_labels", "tie_encoder_decoder"});
  // Special tokens and text generation, which have files of their own.
  fields.PassOver({"bos_token_id",
                   "eos_token_id",
                   "pad_token_id",
                   "sep_token_id",
                   "cls_token_id",
                   "mask_token_id",
                   "unk_token_id",
                   "decoder_start_token_id",
                   "forced_bos_token_id",
                   "forced_eos_token_id",
                   "suppress_tokens",
                   "begin_suppress_tokens",
                   "bad_words_ids",
                   "prefix",
                   "task_specific_params",
                   "max_length",
                   "min_length",
                   "do_sample",
                   "early_stopping",
                   "num_beams",
                   "num_beam_groups",
                   "diversity_penalty",
                   "temperature",
                   "top_k",
                   "top_p",
                   "typical_p",
                   "repetition_penalty",
                   "length_penalty",
                   "no_repeat_ngram_size",
                   "encoder_no_repeat_ngram_size",
                   "num_return_sequences",
                   "output_scores",
                   "return_dict_in_generate",
                   "remove_invalid_values",
                   "exponential_decay_length_penalty"});
  // Other models than these.
  fields.MustBe("is_encoder_decoder", false);
  fields.MustBe("is_decoder", false);
  fields.MustBe("add_cross_attention", false);
  fields.MustBe("pruned_heads", nlohmann::json::object());
  fields.PassOver({"cross_attention_hidden_size", "tf_legacy_loss", "use_bfloat16"});
}

}  // namespace lepton::huggingface
