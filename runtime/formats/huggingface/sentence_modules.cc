#include "runtime/formats/huggingface/sentence_modules.h"

#include <algorithm>
#include <limits>

#include "runtime/base/json_text.h"
#include "runtime/formats/huggingface/config_fields.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using Task = Config::Task;

constexpr char kPooling[] = "1_Pooling";
// The first that is there counts; the older ones are named after families.
constexpr const char* kLimits[] = {
    "sentence_bert_config.json",       "sentence_roberta_config.json",
    "sentence_distilbert_config.json", "sentence_camembert_config.json",
    "sentence_albert_config.json",     "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json"};
constexpr char kTokenizer[] = "tokenizer_config.json";
constexpr char kPrompts[] = "config_sentence_transformers.json";

Status BadModules(const std::string& what) {
  return InvalidArgument(std::string(kModules) + ": " + what);
}

Result<json> ReadJson(const OpenFile& open, const std::string& name,
                      size_t limit = kMaxConfigBytes) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(open, name, limit));
  if (NestedDeeper(text, 32)) return InvalidArgument(name + ": is nested too deep");
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return InvalidArgument(name + ": is not JSON");
  return document;
}

// Null when there is no such file.
Result<json> ReadObject(const OpenFile& open, const std::string& name,
                        size_t limit = kMaxConfigBytes) {
  if (open(name).status().code() == StatusCode::kNotFound) return json();
  LEPTON_ASSIGN_OR_RETURN(json document, ReadJson(open, name, limit));
  if (!document.is_object()) return InvalidArgument(name + ": is not a JSON object");
  return document;
}

// A folder within the folder.
bool PlainFolder(const std::string& path) {
  return !path.empty() && path.size() <= 64 && path[0] != '.' && path.find('/') == path.npos &&
         path.find('\0') == path.npos;
}

struct Modules {
  std::string pooling;  // its folder
  bool normalize = false;
};
Result<Modules> ParseModules(const json& document) {
  constexpr const char* kOrder[] = {"Transformer", "Pooling", "Normalize"};
  if (!document.is_array() || document.size() < 2) {
    return BadModules("must be a list of Transformer, Pooling and, if need be, Normalize");
  }
  Modules modules;
  for (size_t i = 0; i < document.size(); ++i) {
    const json& module = document[i];
    const auto text = [&](const char* key) {
      return module.is_object() && module.contains(key) && module[key].is_string()
                 ? module[key].get<std::string>()
                 : std::string();
    };
    const std::string type = text("type");
    const size_t dot = type.rfind('.');
    const bool public_code = dot != type.npos && type.starts_with("sentence_transformers.");
    if (i >= std::size(kOrder) || !public_code || type.substr(dot + 1) != kOrder[i]) {
      return BadModules(std::to_string(i) + ": type \"" + type +
                        "\" is not supported: the modules must be Transformer, Pooling and, if "
                        "need be, Normalize; without the file the body is read alone");
    }
    if (i == 0 && !text("path").empty()) {
      return BadModules("0: path: the body must be in the folder itself");
    }
    if (i == 1) modules.pooling = text("path");
    if (i == 2) modules.normalize = true;
  }
  if (!PlainFolder(modules.pooling)) {
    return BadModules("1: path: is not the name of a folder in this one");
  }
  return modules;
}

// One of several switches, of which public code takes the means for on when nothing is said.
void ReadSwitches(ConfigFields& fields, std::string& pool) {
  bool first = false, mean = true, last = false;
  fields.Bool("pooling_mode_cls_token", first);
  fields.Bool("pooling_mode_mean_tokens", mean);
  fields.Bool("pooling_mode_lasttoken", last);
  for (const char* other : {"pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens",
                            "pooling_mode_weightedmean_tokens"}) {
    fields.MustBe(other, false);
  }
  if (first + mean + last != 1) {
    return fields.Fail("pooling_mode_mean_tokens",
                       "one of it, pooling_mode_cls_token and pooling_mode_lasttoken must be true");
  }
  pool = first ? "first" : mean ? "mean" : "last";
}

Status ReadPooling(const json& document, const std::string& file, int64_t width,
                   std::string& pool) {
  ConfigFields fields(document, "", file);
  std::string mode;
  fields.Text("pooling_mode", mode);
  if (mode.empty()) {
    ReadSwitches(fields, pool);
  } else {
    for (const auto& [theirs, ours] :
         {std::pair{"cls", "first"}, {"mean", "mean"}, {"lasttoken", "last"}}) {
      if (mode == theirs) pool = ours;
    }
    if (pool.empty()) {
      fields.Fail("pooling_mode", mode + " is not supported: must be cls, mean or lasttoken");
    }
  }
  for (const char* key : {"word_embedding_dimension", "embedding_dimension"}) {
    fields.MustBe(key, width);
  }
  fields.PassOver({"include_prompt"});  // of prompts, which there are none of
  return fields.Finish();
}

// How newer versions call the body, of which the tokens' last hidden states are what is pooled.
// Texts go in as they are; `message` is for what has roles.
Status ReadModalities(const json& modalities, const std::string& file) {
  if (!modalities.is_object()) {
    return InvalidArgument(file + ": modality_config: is not an object");
  }
  ConfigFields fields(modalities, "modality_config.", file);
  fields.PassOver({"message"});
  const json* text = fields.Take("text");
  if (text == nullptr) {
    fields.Fail("text", "is missing");
  } else if (!text->is_object()) {
    fields.Fail("text", "is not an object");
  } else {
    ConfigFields call(*text, "modality_config.text.", file);
    call.MustBe("method", "forward");
    call.MustBe("method_output_name", "last_hidden_state");
    fields.Add(call.Finish());
  }
  return fields.Finish();
}

// Where texts are cut; 0 when that is not said.
Status ReadLimits(const json& document, const std::string& file, int64_t& tokens) {
  ConfigFields fields(document, "", file);
  fields.Integer("max_seq_length", tokens, 1, 1 << 30);
  fields.MustBe("do_lower_case", false);
  fields.MustBe("transformer_task", "feature-extraction");
  fields.MustBe("module_output_name", "token_embeddings");
  fields.MustBe("processing_kwargs", json::object());
  fields.PassOver({"unpad_inputs"});  // of speed
  if (const json* modalities = fields.Take("modality_config"); modalities != nullptr) {
    fields.Add(ReadModalities(*modalities, file));
  }
  return fields.Finish();
}

// Where public code cuts texts when the modules do not say it. `tokens` is as it was when the
// tokenizer does not either; no limit is written as 1e30.
Status ReadTokenizerLimit(const OpenFile& open, int64_t context, int64_t& tokens) {
  LEPTON_ASSIGN_OR_RETURN(const json document, ReadObject(open, kTokenizer, kMaxSmallFileBytes));
  double most = 0;
  ConfigFields fields(document, "", kTokenizer);
  fields.Number("model_max_length", most, 1, std::numeric_limits<double>::max());
  LEPTON_RETURN_IF_ERROR(fields.status());
  if (most >= 1) tokens = static_cast<int64_t>(std::min(most, static_cast<double>(context)));
  return Status::Ok();
}

Status ReadPrompts(const json& document) {
  const auto name = document.is_object() ? document.find("default_prompt_name") : document.end();
  if (document.is_null() || name == document.end() || name->is_null()) return Status::Ok();
  return InvalidArgument(std::string(kPrompts) +
                         ": default_prompt_name: a prompt in front of each text is not supported: "
                         "put it into the texts and null here");
}

}  // namespace

Status ReadSentenceModules(const OpenFile& open, Folder& folder) {
  Config& config = folder.config;
  const bool whole = config.task == Task::kBase || config.task == Task::kLanguageModel;
  if (!whole || config.model.arch != "transformer") return Status::Ok();
  if (open(kModules).status().code() == StatusCode::kNotFound) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const json document, ReadJson(open, kModules));
  LEPTON_ASSIGN_OR_RETURN(const Modules modules, ParseModules(document));
  const std::string pooling = modules.pooling + "/config.json";
  LEPTON_ASSIGN_OR_RETURN(const json pooling_config, ReadObject(open, pooling));
  if (pooling_config.is_null()) return NotFound(pooling + ": missing: " + kModules + " names it");
  spec::TransformerSpec& t = config.model.transformer;
  std::string pool;
  LEPTON_RETURN_IF_ERROR(ReadPooling(pooling_config, pooling, t.width, pool));
  const auto limits = std::find_if(std::begin(kLimits), std::end(kLimits), [&](const char* file) {
    return open(file).status().code() != StatusCode::kNotFound;
  });
  if (limits != std::end(kLimits)) {
    LEPTON_ASSIGN_OR_RETURN(const json limits_config, ReadObject(open, *limits));
    LEPTON_RETURN_IF_ERROR(ReadLimits(limits_config, *limits, config.text_tokens));
  }
  if (config.text_tokens == 0) {
    LEPTON_RETURN_IF_ERROR(ReadTokenizerLimit(open, t.context, config.text_tokens));
  }
  LEPTON_ASSIGN_OR_RETURN(const json prompts, ReadObject(open, kPrompts));
  LEPTON_RETURN_IF_ERROR(ReadPrompts(prompts));
  config.sentence = true;
  config.task = Task::kBase;
  config.model.head = "none";
  t.pool = pool;
  t.pooler = false;
  t.normalize = modules.normalize;
  folder.module_files = {kModules, pooling};
  if (limits != std::end(kLimits)) folder.module_files.push_back(*limits);
  return Status::Ok();
}

std::vector<std::pair<std::string, std::string>> SentenceModules(const spec::ModelSpec& model,
                                                                 int64_t text_tokens) {
  const spec::TransformerSpec& t = model.transformer;
  json modules = json::array();
  const auto add = [&](const char* type, const std::string& path) {
    const size_t index = modules.size();
    modules.push_back({{"idx", index},
                       {"name", std::to_string(index)},
                       {"path", path},
                       {"type", std::string("sentence_transformers.models.") + type}});
  };
  add("Transformer", "");
  add("Pooling", kPooling);
  if (t.normalize) add("Normalize", "2_Normalize");
  const json pooling = {
      {"word_embedding_dimension", t.width},          {"pooling_mode_cls_token", t.pool == "first"},
      {"pooling_mode_mean_tokens", t.pool == "mean"}, {"pooling_mode_max_tokens", false},
      {"pooling_mode_mean_sqrt_len_tokens", false},   {"pooling_mode_weightedmean_tokens", false},
      {"pooling_mode_lasttoken", t.pool == "last"}};
  const json limits = {{"max_seq_length", text_tokens}, {"do_lower_case", false}};
  return {{kModules, modules.dump(2) + "\n"},
          {std::string(kPooling) + "/config.json", pooling.dump(2) + "\n"},
          {kLimits[0], limits.dump(2) + "\n"}};
}

}  // namespace lepton::huggingface
