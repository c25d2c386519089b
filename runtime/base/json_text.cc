#include "runtime/base/json_text.h"

#include <string>

namespace lepton {

bool NestedDeeper(std::string_view text, size_t levels) {
  size_t level = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if ((c == '{' || c == '[') && ++level > levels) return true;
    if ((c == '}' || c == ']') && level > 0) --level;
  }
  return false;
}

Result<nlohmann::json> ParseJson(std::string_view text, size_t most_levels) {
  if (NestedDeeper(text, most_levels)) {
    return InvalidArgument("nested deeper than " + std::to_string(most_levels) + " levels");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    std::string what = error.what();
    if (const size_t at = what.find("at line"); at != std::string::npos) what = what.substr(at + 3);
    return InvalidArgument("not valid JSON: " + what);
  }
}

}  // namespace lepton
