#include "runtime/formats/tokenizer/definition.h"

#include <algorithm>

#include "runtime/formats/tokenizer/read_parts.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr int kMaxJsonDepth = 32;
constexpr size_t kMaxAddedTokenBytes = 1024;
constexpr size_t kMaxAddedTokens = 1'000'000;
constexpr uint32_t kMaxId = 1u << 24;

// Before the JSON parser builds anything: how deep the brackets go.
void CheckDepth(std::string_view json) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if ((c == '[' || c == '{') && ++depth > kMaxJsonDepth) {
      throw FormatError{"nested more than 32 deep at byte " + std::to_string(i)};
    }
    if (c == ']' || c == '}') --depth;
  }
}

std::vector<AddedToken> ReadAddedTokens(const Fields& file, const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (!file.Get("added_tokens")) return tokens;
  const auto& list = file.Array("added_tokens");
  if (list.size() > kMaxAddedTokens) file.Fail("added_tokens", "more than a million");
  for (size_t i = 0; i < list.size(); ++i) {
    Fields fields(list[i], "added_tokens[" + std::to_string(i) + "]");
    fields.Only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token;
    token.id = fields.Uint("id");
    if (token.id > kMaxId) fields.Fail("id", "over 16777216");
    token.content = fields.Text("content");
    if (token.content.empty()) fields.Fail("content", "must not be empty");
    if (token.content.size() > kMaxAddedTokenBytes) fields.Fail("content", "over 1024 bytes");
    token.single_word = fields.Bool("single_word", false);
    token.lstrip = fields.Bool("lstrip", false);
    token.rstrip = fields.Bool("rstrip", false);
    token.special = fields.Bool("special", false);
    token.normalized = fields.Bool("normalized", !token.special);
    auto known = vocabulary.Find(token.content);
    if (known && *known != token.id) {
      fields.Fail("id", "the model gives '" + token.content + "' the id " + std::to_string(*known));
    }
    auto named = vocabulary.Token(token.id);
    if (named && *named != token.content) {
      fields.Fail("id", "the model has another token of this id");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string OneOf(const Fields& fields, std::string_view key, std::string_view fallback,
                  std::initializer_list<std::string_view> known) {
  std::string value = fields.Text(key, fallback);
  if (std::find(known.begin(), known.end(), value) == known.end()) {
    fields.Fail(key, "'" + value.substr(0, 64) + "' is not supported");
  }
  return value;
}

Truncation ReadTruncation(const nlohmann::json& value) {
  Fields fields(value, "truncation");
  fields.Only({"direction", "max_length", "strategy", "stride"});
  return {fields.Uint("max_length"), fields.Uint("stride", 0),
          OneOf(fields, "strategy", "LongestFirst", {"LongestFirst", "OnlyFirst", "OnlySecond"}),
          OneOf(fields, "direction", "Right", {"Right", "Left"})};
}

Padding ReadPadding(const nlohmann::json& value) {
  Fields fields(value, "padding");
  fields.Only(
      {"strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token"});
  Padding padding;
  const nlohmann::json& strategy = fields.Need("strategy");
  if (strategy.is_object()) {
    Fields fixed(strategy, "padding.strategy");
    fixed.Only({"Fixed"});
    padding.fixed_length = fixed.Uint("Fixed");
  } else {
    OneOf(fields, "strategy", "", {"BatchLongest"});
  }
  padding.direction = OneOf(fields, "direction", "Right", {"Right", "Left"});
  padding.pad_to_multiple_of = fields.Uint("pad_to_multiple_of", 0);
  padding.pad_id = fields.Uint("pad_id", 0);
  padding.pad_type_id = fields.Uint("pad_type_id", 0);
  padding.pad_token = fields.Text("pad_token", "[PAD]");
  return padding;
}

Definition ReadFile(const nlohmann::json& value) {
  Fields file(value, "");
  file.Only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
             "post_processor", "decoder", "model"});
  std::string version = file.Text("version", "1.0");
  if (version != "1.0") file.Fail("version", "'" + version.substr(0, 64) + "' is not supported");
  Definition definition;
  const nlohmann::json* pre_tokenizer = file.Get("pre_tokenizer");
  definition.model =
      ReadModel(file.Need("model"), pre_tokenizer && EndsInByteLevel(*pre_tokenizer));
  if (const auto* normalizer = file.Get("normalizer")) {
    definition.normalizer = ReadNormalizer(*normalizer, "normalizer");
  }
  if (pre_tokenizer) {
    ReadPreTokenizer(*pre_tokenizer, "pre_tokenizer", definition.model->takes_raw_bytes(),
                     definition);
  }
  if (const auto* processor = file.Get("post_processor")) {
    ReadPostProcessor(*processor, "post_processor", definition.post_processor);
  }
  if (const auto* decoder = file.Get("decoder")) {
    definition.decoder = ReadDecoder(*decoder, "decoder");
  }
  definition.added_tokens = ReadAddedTokens(file, definition.model->vocabulary());
  if (const auto* truncation = file.Get("truncation")) {
    definition.truncation = ReadTruncation(*truncation);
  }
  if (const auto* padding = file.Get("padding")) definition.padding = ReadPadding(*padding);
  return definition;
}

}  // namespace

Result<Definition> ReadDefinition(std::string_view json) {
  try {
    CheckDepth(json);
    return ReadFile(nlohmann::json::parse(json));
  } catch (const FormatError& error) {
    return InvalidArgument(error.message);
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument(std::string("not JSON: ") + error.what());
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("no memory for it");
  }
}

Pattern ReadPattern(const Fields& fields) {
  Fields pattern(fields.Need("pattern"), fields.At("pattern"));
  pattern.Only({"String", "Regex"});
  Pattern out;
  if (pattern.Get("Regex")) {
    const std::string& text = pattern.Text("Regex");
    out.regex = pattern.Unwrap("Regex", Regex::Compile(text));
    return out;
  }
  out.plain = pattern.Text("String");
  if (out.plain.empty()) pattern.Fail("String", "must not be empty");
  return out;
}

char32_t ReadChar(const Fields& fields, std::string_view key, char32_t fallback) {
  if (!fields.Get(key)) return fallback;
  std::u32string chars = ToCodePoints(fields.Text(key));
  if (chars.size() != 1) fields.Fail(key, "must be one character");
  return chars[0];
}

std::string ReadType(const nlohmann::json& value, const std::string& path) {
  return Fields(value, path).Text("type").substr(0, 64);
}

}  // namespace lepton::tokenizer
