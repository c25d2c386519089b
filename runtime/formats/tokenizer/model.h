// The models of tokenizer.json: how one pre-tokenised piece becomes ids.
// Threads: models are immutable after construction; a Workspace belongs to one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/formats/tokenizer/vocabulary.h"
#include "runtime/formats/tokenizer/word_cache.h"

namespace lepton::tokenizer {

// A token and the bytes [begin, end) of the piece that it stands for.
struct Part {
  uint32_t id;
  uint32_t begin;
  uint32_t end;
};

// What a call needs and the next one can use again.
struct Workspace {
  WordCache cache;
  std::vector<Part> parts;
};

class Model {
 public:
  virtual ~Model() = default;
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Appends the parts of `piece`, which is not empty.
  virtual Status Tokenize(std::string_view piece, Workspace& workspace,
                          std::vector<Part>& parts) const = 0;
  // Whether Tokenize takes raw bytes that a byte-level vocabulary's table has yet to map.
  virtual bool takes_raw_bytes() const { return false; }
  // Whether the token of `id` reads as the text it stands for (an unknown piece of Unigram).
  virtual bool shows_text(uint32_t) const { return false; }

 protected:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  Vocabulary vocabulary_;
};

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string prefix = "##";
  uint32_t max_chars_per_word = 100;
};
Result<std::unique_ptr<Model>> MakeWordPiece(Vocabulary vocabulary,
                                             const WordPieceOptions& options);

struct UnigramOptions {
  std::vector<double> scores;  // by id, one for each token
  std::optional<uint32_t> unk_id;
  bool byte_fallback = false;
};
Result<std::unique_ptr<Model>> MakeUnigram(Vocabulary vocabulary, UnigramOptions options);

// The ids of <0x00> ... <0xFF>, where the vocabulary has them; -1 where not.
std::array<int64_t, 256> ByteFallbackIds(const Vocabulary& vocabulary);

}  // namespace lepton::tokenizer
