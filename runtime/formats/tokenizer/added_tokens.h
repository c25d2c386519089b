// Added and special tokens: found in the text before any model sees it.
// Threads: immutable after Prepare.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/text.h"
#include "runtime/formats/tokenizer/vocabulary.h"

namespace lepton::tokenizer {

struct AddedToken {
  uint32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the spaces before it
  bool rstrip = false;       // and behind it
  bool normalized = true;    // looked for after normalisation, and itself normalised
  bool special = false;
};

class AddedTokens {
 public:
  // `normalizer` may be null.
  Status Prepare(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  // The text as pieces, normalised, with the added tokens marked; no piece is empty.
  Status Split(std::string_view text, const Normalizer* normalizer, TextArena& arena,
               std::vector<Piece>& out) const;

  const AddedToken* Find(uint32_t id) const;
  const AddedToken* Find(std::string_view content) const;
  uint32_t id_end() const { return id_end_; }  // one more than the largest id

 private:
  // Appends `piece` cut at the tokens that `trie` (values: indices) finds, leftmost longest.
  void Cut(const Piece& piece, const PrefixTrie& trie, std::vector<Piece>& out) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> normalized_;  // what the keys of after_ borrow from
  std::unordered_map<uint32_t, size_t> by_id_;
  std::unordered_map<std::string_view, size_t> by_content_;
  PrefixTrie before_, after_;  // the text is normalised
  uint32_t id_end_ = 0;
};

}  // namespace lepton::tokenizer
