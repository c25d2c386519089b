// Normalisers of tokenizer.json: what happens to text before it is cut.
// Threads: immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/tokenizer/regex.h"
#include "runtime/formats/tokenizer/text.h"

namespace lepton::tokenizer {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual Result<Piece> Apply(const Piece& piece, TextArena& arena) const = 0;
};
using NormalizerPtr = std::unique_ptr<Normalizer>;

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

NormalizerPtr MakeUnicodeNormalizer(UnicodeForm form);
NormalizerPtr MakeLowercase();
NormalizerPtr MakeStrip(bool left, bool right);
NormalizerPtr MakeStripAccents();
NormalizerPtr MakePrepend(std::string prefix);
NormalizerPtr MakeByteLevelNormalizer();
struct BertOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};
NormalizerPtr MakeBertNormalizer(const BertOptions& options);
// `regex` null: the plain string `pattern`, not empty.
NormalizerPtr MakeReplace(std::string pattern, std::unique_ptr<Regex> regex, std::string content);
// SentencePiece's compiled map. kInvalidArgument for a map that does not hang together.
Result<NormalizerPtr> MakePrecompiled(std::string_view base64_map);
NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> all);

// The plain-string counterpart of Regex::FindAll; `pattern` not empty.
void FindAllPlain(std::string_view text, std::string_view pattern, std::vector<Span>& matches);

}  // namespace lepton::tokenizer
