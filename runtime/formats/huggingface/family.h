// What is known of each family of models. Private to this folder. To add one: a file family_x.cc
// with a function that returns its Family, its line in family_list.cc, a golden of it.
// Threads: immutable.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/formats/huggingface/config.h"
#include "runtime/formats/huggingface/config_fields.h"

namespace lepton::huggingface {

struct Family {
  std::string_view model_type;
  struct Class {
    std::string_view name;
    Config::Task task;
  };
  // Those of a task whose head we have first; the first of all is the base model.
  std::vector<Class> classes;
  // Whether a model of ours is one of this family.
  bool (*owns)(const spec::ModelSpec& model) = nullptr;
  // Takes the family's options into the model, which has the family's defaults.
  void (*read)(ConfigFields& fields, spec::ModelSpec& model) = nullptr;
  spec::ModelSpec (*defaults)() = nullptr;
  // The options of a resolved model.
  nlohmann::json (*write)(const spec::ModelSpec& model) = nullptr;

  // Names of tensors: the body's prefix, which files of base models leave out; the heads that our
  // models have; the beginnings of those that they do not have; ends of buffers.
  std::string_view body;
  std::vector<std::string_view> heads;
  std::vector<std::string_view> unused_heads;
  std::vector<std::string_view> buffers;
  // The beginning of what classes for tokens and pictures, and sentence-transformers, leave out of
  // the body, though files that were tuned from a whole one still have it.
  std::string_view pooler;
};

// The one list of families.
const std::vector<Family>& Families();

std::vector<Family> LlamaFamilies();  // llama, mistral, qwen2, qwen3
Family Gpt2Family();
Family BertFamily();
Family DistilbertFamily();
Family ResnetFamily();
Family SmallResnetFamily();  // with a stem for small images, which no public model has
Family VitFamily();

}  // namespace lepton::huggingface
