// A compiled PCRE2 pattern with the classes of Unicode. Threads: immutable; any thread may search.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/formats/tokenizer/text.h"

namespace lepton::tokenizer {

class Regex {
 public:
  // kInvalidArgument with PCRE2's words and the position.
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
