// Regular expressions (Perl's, through PCRE2) that users write and a server runs on text that
// anybody writes: a search takes bounded time, whatever both are.
// Threads: Found from any number at once.
#pragma once

#include <memory>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton {

class Pattern {
 public:
  // kInvalidArgument, saying what is wrong and where.
  static Result<Pattern> Compile(std::string_view text);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // Whether it matches somewhere in `text`, byte by byte. kResourceExhausted when that takes more
  // than some ten milliseconds' work to find out.
  Result<bool> Found(std::string_view text) const;

 private:
  struct Code;
  explicit Pattern(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace lepton
