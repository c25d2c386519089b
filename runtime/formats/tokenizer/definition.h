// tokenizer.json, read: the parts that a Tokenizer is put together from. Internal to this folder.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "runtime/formats/tokenizer/added_tokens.h"
#include "runtime/formats/tokenizer/decoder.h"
#include "runtime/formats/tokenizer/model.h"
#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/post_processor.h"
#include "runtime/formats/tokenizer/pre_tokenizer.h"

namespace lepton::tokenizer {

struct Definition {
  NormalizerPtr normalizer;                     // may be null
  std::vector<PreTokenizerPtr> pre_tokenizers;  // in order; may be empty
  std::unique_ptr<Model> model;
  std::vector<AddedToken> added_tokens;
  PostProcessor post_processor;
  DecoderPtr decoder;  // may be null
  std::optional<Truncation> truncation;
  std::optional<Padding> padding;
  // The whole pre-tokeniser is ByteLevel's pattern and the model takes raw bytes: text can go from
  // the scanner to the model directly.
  bool scans_gpt2 = false;
  bool gpt2_prefix_space = false;
};

// kInvalidArgument with the JSON path.
Result<Definition> ReadDefinition(std::string_view json);

}  // namespace lepton::tokenizer
