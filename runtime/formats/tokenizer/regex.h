// A regex of tokenizer.json, compiled by PCRE2 to match as in Oniguruma. Threads: immutable; any
// thread may search.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/formats/tokenizer/text.h"

namespace lepton::tokenizer {

class Regex {
 public:
  // kInvalidArgument for what PCRE2 cannot say (regex_spelling.h), or with its words and the
  // position.
  static Result<std::unique_ptr<Regex>> Compile(std::string_view pattern);
  ~Regex();
  // All matches from left to right. kResourceExhausted when one takes too many steps.
  Status FindAll(std::string_view text, std::vector<Span>& matches) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace lepton::tokenizer
