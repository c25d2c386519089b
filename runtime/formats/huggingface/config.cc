#include "runtime/formats/huggingface/config.h"

#include <algorithm>
#include <set>

#include "runtime/base/json_text.h"
#include "runtime/formats/huggingface/family.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::ModelSpec;
using Task = Config::Task;

constexpr size_t kMaxLabels = 1'000'000;
constexpr char kClasses[] = "lepton_classes";  // of a binary model, whose folder has one label
constexpr char kMultiLabel[] = "multi_label_classification";
// What no public model of a family has is written under a model_type of ours, "lepton_bert", so
// that other programs refuse it instead of answering otherwise: an answer read from other tokens
// than the family does, or without its pooler.
constexpr std::string_view kOurs = "lepton_";
constexpr char kPool[] = "lepton_pool";
constexpr char kPooler[] = "lepton_pooler";
constexpr char kNormalize[] = "lepton_normalize";  // modules.json says it to others

Status Bad(const std::string& what) {
  return InvalidArgument("config.json: " + what);
}

Result<json> ParseDocument(std::string_view text) {
  if (text.size() > kMaxConfigBytes) return Bad("has more than 1 MiB");
  // Nesting is bounded, so that no document ends the process by its depth.
  if (NestedDeeper(text, 32)) return Bad("is nested too deep");
  json document = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object()) return Bad("is not a JSON object");
  return document;
}

Result<const Family*> FindFamily(const json& document) {
  const auto type = document.find("model_type");
  if (type == document.end() || !type->is_string()) return Bad("model_type: missing");
  // A family may be called lepton_resnet itself: its own name goes before another's with the
  // prefix.
  for (const std::string_view prefix : {std::string_view(), kOurs}) {
    for (const Family& family : Families()) {
      if (*type == std::string(prefix) + std::string(family.model_type)) return &family;
    }
  }
  std::string known;
  for (const Family& family : Families()) {
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  return Bad("model_type: " + type->get<std::string>() + " is not supported: must be one of " +
             known);
}

Status ReadArchitecture(const json& document, const Family& family, Config& config) {
  const auto names = document.find("architectures");
  std::string known;
  for (const Family::Class& c : family.classes) {
    known += (known.empty() ? "" : ", ") + std::string(c.name);
  }
  if (names == document.end() || !names->is_array() || names->size() != 1 ||
      !(*names)[0].is_string()) {
    return Bad("architectures: missing: must name one class: " + known);
  }
  config.architecture = (*names)[0].get<std::string>();
  for (const Family::Class& c : family.classes) {
    if (c.name != config.architecture) continue;
    config.task = c.task;
    config.model.head = c.task == Task::kBase ? "none" : "auto";
    return Status::Ok();
  }
  return Bad("architectures: " + config.architecture + " is not supported: must be one of " +
             known);
}

bool Classifies(Task task) {
  return task == Task::kTextClassification || task == Task::kTokenClassification ||
         task == Task::kImageClassification;
}

// Classes are told apart by their names: one that comes again (ImageNet has two cranes) gets its
// number behind it.
void MakeDistinct(std::vector<std::string>& labels) {
  std::set<std::string> all(labels.begin(), labels.end()), seen;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (seen.insert(labels[i]).second) continue;
    labels[i] += " (" + std::to_string(i) + ")";
    while (!all.insert(labels[i]).second) labels[i] += "'";
    seen.insert(labels[i]);
  }
}

// {"0": "cat", "1": "dog"}; without it there are num_labels (2) that are called LABEL_0, LABEL_1.
Status ReadLabels(const json& document, Config& config) {
  if (!Classifies(config.task)) return Status::Ok();
  const auto names = document.find("id2label");
  if (names == document.end() || names->is_null()) {
    const int64_t count = document.value("num_labels", json(2)).is_number_integer()
                              ? document.value("num_labels", json(2)).get<int64_t>()
                              : 0;
    if (count < 1 || count > static_cast<int64_t>(kMaxLabels)) {
      return Bad("num_labels: must be from 1 to 1000000");
    }
    for (int64_t i = 0; i < count; ++i) config.labels.push_back("LABEL_" + std::to_string(i));
    return Status::Ok();
  }
  if (!names->is_object() || names->empty() || names->size() > kMaxLabels) {
    return Bad("id2label: is not an object with a text for each class");
  }
  for (size_t i = 0; i < names->size(); ++i) {
    const auto label = names->find(std::to_string(i));
    if (label == names->end() || !label->is_string()) {
      return Bad("id2label: has no text for class " + std::to_string(i));
    }
    config.labels.push_back(label->get<std::string>());
  }
  MakeDistinct(config.labels);
  return Status::Ok();
}

Status ReadClasses(ConfigFields& fields, Config& config) {
  const json* const names = fields.Take(kClasses);
  if (names == nullptr) return Status::Ok();
  const bool two = names->is_array() && names->size() == 2 && (*names)[0].is_string() &&
                   (*names)[1].is_string() && (*names)[0] != (*names)[1];
  if (!two || config.problem_type != kMultiLabel || config.labels.size() != 1 ||
      (*names)[1] != config.labels[0]) {
    return Bad(std::string(kClasses) +
               ": must be two names, of which the second is the one label of a " + kMultiLabel);
  }
  config.classes = names->get<std::vector<std::string>>();
  return Status::Ok();
}

Status ReadProblem(const json& document, Config& config) {
  const auto problem = document.find("problem_type");
  if (problem == document.end() || problem->is_null()) return Status::Ok();
  const std::string text = problem->is_string() ? problem->get<std::string>() : problem->dump();
  if (text != "regression" && text != "single_label_classification" && text != kMultiLabel) {
    return Bad("problem_type: " + text +
               " is not supported: must be regression, single_label_classification or "
               "multi_label_classification");
  }
  config.problem_type = text;
  return Status::Ok();
}

// Whether public programs would compute something else by the family's class for this task.
bool IsOurs(const Family& family, const ModelSpec& model, Task task) {
  const spec::TransformerSpec& t = model.transformer;
  if (model.arch != "transformer") return false;
  const ModelSpec usual = family.defaults();
  if (task == Task::kTextClassification &&
      (t.pool != usual.transformer.pool || t.pooler != usual.transformer.pooler)) {
    return true;
  }
  const bool fixed_epsilon = t.style == "distilbert";
  return (fixed_epsilon && t.norm_epsilon != usual.transformer.norm_epsilon) ||
         (usual.transformer.token_types > 0 && t.token_types == 0);
}

// What pads the texts of families that find the last token by the padding behind it: the
// tokenizer's own, or the end of a text, as everybody has it. Null: nobody said.
json PaddingOf(const json& original) {
  const auto end = original.find("eos_token_id");
  if (end == original.end()) return nullptr;
  const json& id = end->is_array() && !end->empty() ? (*end)[0] : *end;
  return id.is_number_integer() ? id : json(nullptr);
}

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

std::string OtherClass(const std::string& label) {
  return "not " + label;
}

Result<Config> ParseConfig(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(const json document, ParseDocument(text));
  LEPTON_ASSIGN_OR_RETURN(const Family* const family, FindFamily(document));
  Config config;
  config.model_type = std::string(family->model_type);
  config.model = family->defaults();
  LEPTON_RETURN_IF_ERROR(ReadArchitecture(document, *family, config));
  LEPTON_RETURN_IF_ERROR(ReadLabels(document, config));
  LEPTON_RETURN_IF_ERROR(ReadProblem(document, config));
  ConfigFields fields(document);
  PassOverCommonOptions(fields);
  LEPTON_RETURN_IF_ERROR(ReadClasses(fields, config));
  family->read(fields, config.model);
  std::string& pool = config.model.transformer.pool;
  fields.Text(kPool, pool);
  fields.Bool(kPooler, config.model.transformer.pooler);
  if (config.task == Task::kBase) fields.Bool(kNormalize, config.model.transformer.normalize);
  if (pool != "first" && pool != "mean" && pool != "last") {
    fields.Fail(kPool, pool + " is not supported: must be first, mean or last");
  }
  LEPTON_RETURN_IF_ERROR(fields.Finish());
  return config;
}

Result<std::string> WriteConfig(const ModelSpec& model, Task task,
                                const std::vector<std::string>& labels,
                                const std::string& problem_type, std::string_view original,
                                std::string_view torch_dtype) {
  const auto& families = Families();
  const auto family = std::find_if(families.begin(), families.end(),
                                   [&](const Family& f) { return f.owns(model); });
  if (family == families.end()) {
    return FailedPrecondition("model.arch: " + model.arch +
                              " has no form as a Hugging Face folder; its weights are safetensors");
  }
  const auto named = std::find_if(family->classes.begin(), family->classes.end(),
                                  [&](const Family::Class& c) { return c.task == task; });
  if (named == family->classes.end()) {
    return FailedPrecondition("model.arch: the family " + std::string(family->model_type) +
                              " has no class for this head");
  }
  json document = json::object();
  if (!original.empty()) {
    LEPTON_ASSIGN_OR_RETURN(document, ParseDocument(original));
    for (const char* key : {"id2label", "label2id", "num_labels", "problem_type", "rope_parameters",
                            "original_max_position_embeddings", "layer_types", "dtype", kClasses}) {
      document.erase(key);
    }
  }
  document.update(family->write(model));
  document["model_type"] = std::string(family->model_type);
  document["architectures"] = {std::string(named->name)};
  document["torch_dtype"] = std::string(torch_dtype);
  if (Classifies(task)) {
    json names = json::object(), indices = json::object();
    const bool binary = problem_type == kMultiLabel && labels.size() == 2;
    const std::vector<std::string> written = binary ? std::vector<std::string>{labels[1]} : labels;
    for (size_t i = 0; i < written.size(); ++i) {
      names[std::to_string(i)] = written[i];
      indices[written[i]] = i;
    }
    if (binary && labels[0] != OtherClass(labels[1])) document[kClasses] = labels;
    document["id2label"] = std::move(names);
    document["label2id"] = std::move(indices);
    if (!problem_type.empty()) document["problem_type"] = problem_type;
  }
  if (model.arch == "transformer") {
    const ModelSpec usual = family->defaults();
    document.erase(kPool);
    document.erase(kPooler);
    document.erase(kNormalize);
    if (task == Task::kBase && model.transformer.normalize) document[kNormalize] = true;
    if (model.transformer.pool != usual.transformer.pool) document[kPool] = model.transformer.pool;
    if (task == Task::kTextClassification && model.transformer.pooler != usual.transformer.pooler) {
      document[kPooler] = model.transformer.pooler;
    }
    if (IsOurs(*family, model, task)) {
      document["model_type"] = std::string(kOurs) + std::string(family->model_type);
    }
    // Public code finds the last token by the padding after it.
    const bool by_padding = usual.transformer.pool == "last" && task == Task::kTextClassification;
    const json padding = PaddingOf(document);
    const auto known = document.find("pad_token_id");
    if (by_padding && (known == document.end() || known->is_null()) && !padding.is_null()) {
      document["pad_token_id"] = padding;
    }
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string CanonicalTensorName(const Config& config, std::string_view name) {
  const auto& families = Families();
  const auto family = std::find_if(families.begin(), families.end(), [&](const Family& f) {
    return f.model_type == config.model_type;
  });
  if (family == families.end()) return std::string(name);
  const auto begins = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(),
                       [&](std::string_view start) { return StartsWith(name, start); });
  };
  if (begins(family->unused_heads)) return "";
  for (const std::string_view buffer : family->buffers) {
    if (EndsWith(name, buffer)) return "";
  }
  if (begins(family->heads)) {
    // A head of another task than the class has, or a copy of the embedding.
    const bool language_model = StartsWith(name, "lm_head.");
    if (config.task == Task::kBase || language_model != (config.task == Task::kLanguageModel) ||
        (language_model && config.model.transformer.tied)) {
      return "";
    }
    return std::string(name);
  }
  std::string canonical(name);
  if (!StartsWith(name, family->body)) canonical = std::string(family->body) + canonical;
  const auto rename = [&](std::string_view old_end, std::string_view new_end) {
    if (!EndsWith(canonical, old_end)) return;
    canonical.replace(canonical.size() - old_end.size(), old_end.size(), new_end);
  };
  const bool pooled = config.task != Task::kTokenClassification &&
                      config.task != Task::kImageClassification && !config.sentence;
  if (!pooled && !family->pooler.empty() && StartsWith(canonical, family->pooler)) return "";
  rename("LayerNorm.gamma", "LayerNorm.weight");
  rename("LayerNorm.beta", "LayerNorm.bias");
  return canonical;
}

}  // namespace lepton::huggingface
