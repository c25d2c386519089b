// Pre-tokenisers of tokenizer.json: where a model may not look across. Each takes pieces and cuts
// them further; some change them. Threads: immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/formats/tokenizer/regex.h"
#include "runtime/formats/tokenizer/text.h"

namespace lepton::tokenizer {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends what `piece` (not empty, no added token) becomes; empty pieces are left out.
  virtual Status Apply(const Piece& piece, TextArena& arena, std::vector<Piece>& out) const = 0;
};
using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;

// What happens to what a delimiter matched.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
enum class PrependScheme { kAlways, kFirst, kNever };

struct ByteLevelOptions {
  bool add_prefix_space = true;
  bool use_regex = true;
  bool map_bytes = true;  // off when the model takes raw bytes
};
PreTokenizerPtr MakeByteLevel(const ByteLevelOptions& options);
PreTokenizerPtr MakeWhitespace();
PreTokenizerPtr MakeWhitespaceSplit();
PreTokenizerPtr MakeBertPreTokenizer();
PreTokenizerPtr MakeMetaspace(char32_t replacement, PrependScheme scheme, bool split);
// `regex` null: the plain string `pattern`, not empty.
PreTokenizerPtr MakeSplit(std::string pattern, std::unique_ptr<Regex> regex, Behavior behavior,
                          bool invert);
PreTokenizerPtr MakeDigits(bool individual);
PreTokenizerPtr MakePunctuation(Behavior behavior);

}  // namespace lepton::tokenizer
