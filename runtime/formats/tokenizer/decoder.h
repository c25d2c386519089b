// Decoders of tokenizer.json: tokens back to text. Threads: immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/formats/tokenizer/regex.h"

namespace lepton::tokenizer {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // The tokens as the next decoder of a chain sees them; at the end they are joined.
  virtual Status Apply(std::vector<std::string>& tokens) const = 0;
};
using DecoderPtr = std::unique_ptr<Decoder>;

DecoderPtr MakeByteLevelDecoder();
DecoderPtr MakeWordPieceDecoder(std::string prefix, bool cleanup);
// `drops_first`: the replacement in the first token becomes nothing instead of a space.
DecoderPtr MakeMetaspaceDecoder(char32_t replacement, bool drops_first);
DecoderPtr MakeBpeDecoder(std::string suffix);
// `regex` null: the plain string `pattern`, not empty.
DecoderPtr MakeReplaceDecoder(std::string pattern, std::unique_ptr<Regex> regex,
                              std::string content);
DecoderPtr MakeFuseDecoder();
DecoderPtr MakeStripDecoder(char32_t content, uint32_t start, uint32_t stop);
DecoderPtr MakeByteFallbackDecoder();
DecoderPtr MakeDecoderSequence(std::vector<DecoderPtr> all);

}  // namespace lepton::tokenizer
