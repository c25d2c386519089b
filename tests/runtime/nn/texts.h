// Texts as the models' inputs, for tests.
#pragma once

#include <string>
#include <vector>

#include "runtime/nn/model_list.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {

// Rows of token ids, padded with 0 to one length.
class TextBatch {
 public:
  TextBatch(const Signature& signature, const std::vector<std::vector<int32_t>>& texts,
            size_t length = 0)
      : rows_(static_cast<int64_t>(texts.size())) {
    for (const auto& text : texts) length = std::max(length, text.size());
    length_ = static_cast<int64_t>(length);
    for (const auto& text : texts) {
      for (size_t i = 0; i < length; ++i) {
        tokens_.push_back(i < text.size() ? text[i] : 0);
        mask_.push_back(i < text.size() ? 0.0f : -1e9f);
        types_.push_back(i >= text.size() / 2 && i < text.size() ? 1 : 0);
      }
    }
    for (const InputSpec& input : signature.inputs) {
      void* data = tokens_.data();
      if (input.name == "mask") data = mask_.data();
      if (input.name == "token_types") data = types_.data();
      batch_.inputs.push_back({data, {input.type.dtype, Shape({rows_, length_})}});
    }
  }

  const Batch& batch() const { return batch_; }
  int64_t tokens() const { return rows_ * length_; }
  // The token after each, kNoTarget at the end.
  std::vector<int32_t> next_tokens() const {
    std::vector<int32_t> next;
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t i = 1; i <= length_; ++i) {
        next.push_back(i < length_ ? tokens_[row * length_ + i] : kNoTarget);
      }
    }
    return next;
  }

 private:
  int64_t rows_, length_;
  std::vector<int32_t> tokens_, types_;
  std::vector<float> mask_;
  Batch batch_;
};

inline std::vector<int32_t> BytesOf(const std::string& text) {
  return {text.begin(), text.end()};
}

// A transformer of a style, small enough for tests.
inline spec::ModelSpec TinyTransformer(const std::string& style) {
  spec::ModelSpec model = spec::DefaultModel("transformer", style);
  model.transformer.layers = 2;
  model.transformer.heads = 4;
  model.transformer.width = 32;
  const bool grouped = style != "gpt2" && style != "bert" && style != "distilbert";
  if (grouped) model.transformer.kv_heads = 2;
  return model;
}

inline DataShape TextShape(int64_t vocabulary, int64_t context, int64_t outputs, bool per_token) {
  return {.kind = DataShape::Kind::kTokens,
          .vocabulary = vocabulary,
          .context = context,
          .outputs = outputs,
          .per_token = per_token};
}

// A model for data: resolved, with its signature.
struct BuiltModel {
  spec::ModelSpec model;
  Signature signature;
};
inline BuiltModel Resolve(const spec::ModelSpec& model, const DataShape& data) {
  return {ResolveModel(model, data).value(), MakeSignature(model, data).value()};
}

}  // namespace lepton::nn
