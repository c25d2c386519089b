// Byte-pair encoding: the pair of lowest rank, leftmost first, is merged until none is left.
// Words of up to kScanLimit symbols are scanned for it; longer ones use a heap, O(n log n).
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/tokenizer/model.h"

namespace lepton::tokenizer {

struct BpeOptions {
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::string unk_token;                                    // empty: none
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a word that is a token is that token
  bool raw_bytes = false;      // asked for when the pre-tokeniser ends in ByteLevel
};
// kInvalidArgument for a merge of tokens, or into one, that the vocabulary lacks.
Result<std::unique_ptr<Model>> MakeBpe(Vocabulary vocabulary, BpeOptions options);
// Whether a model of these options can take raw bytes (BpeOptions::raw_bytes).
bool CanTakeRawBytes(const BpeOptions& options);

}  // namespace lepton::tokenizer
