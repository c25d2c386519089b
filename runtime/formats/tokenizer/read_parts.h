// Readers of the sections of tokenizer.json. They throw FormatError (json_fields.h).
#pragma once

#include "runtime/formats/tokenizer/definition.h"
#include "runtime/formats/tokenizer/json_fields.h"

namespace lepton::tokenizer {

NormalizerPtr ReadNormalizer(const nlohmann::json& value, const std::string& path);
// `raw_bytes`: a last ByteLevel leaves the bytes to the model.
void ReadPreTokenizer(const nlohmann::json& value, const std::string& path, bool raw_bytes,
                      Definition& definition);
// Whether the pre-tokeniser's last step is ByteLevel.
bool EndsInByteLevel(const nlohmann::json& value);
void ReadPostProcessor(const nlohmann::json& value, const std::string& path,
                       PostProcessor& processor);
DecoderPtr ReadDecoder(const nlohmann::json& value, const std::string& path);
// `byte_level`: the pre-tokeniser ends in ByteLevel.
std::unique_ptr<Model> ReadModel(const nlohmann::json& value, bool byte_level);

// {"String": s} or {"Regex": s}.
struct Pattern {
  std::string plain;
  std::unique_ptr<Regex> regex;
};
Pattern ReadPattern(const Fields& fields);
// The single character of a string field.
char32_t ReadChar(const Fields& fields, std::string_view key, char32_t fallback);
// The "type" of a section's object.
std::string ReadType(const nlohmann::json& value, const std::string& path);

}  // namespace lepton::tokenizer
