// Cuts a chat template into text and tags, with Jinja's whitespace rules, and tags into tokens.
// Internal: it throws TemplateError.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lepton::tokenizer {

struct TemplateToken {
  enum class Kind { kName, kString, kNumber, kSymbol, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 0;
};

struct TemplateChunk {
  enum class Kind { kText, kOutput, kBlock };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  std::vector<TemplateToken> tokens;  // ends with kEnd
};

std::vector<TemplateChunk> LexTemplate(std::string_view source);

}  // namespace lepton::tokenizer
