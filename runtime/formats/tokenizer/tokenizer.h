// Hugging Face tokenizer.json: text to token ids and back, with the results of the reference
// implementation (github.com/huggingface/tokenizers). What a file asks for and this reader does not
// know is refused by name when the file is read, never ignored.
// Threads: a Tokenizer is immutable after construction (caches are leased per call); any number of
// threads may call any method. Ownership: every result owns its bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

// [begin, end) in code points of the text given to Encode (as in Hugging Face's Python API), not in
// bytes. Tokens that a post-processor added have [0, 0).
struct Offsets {
  uint32_t begin = 0;
  uint32_t end = 0;
  friend bool operator==(const Offsets&, const Offsets&) = default;
};

// Parallel arrays, one entry a token.
struct Encoding {
  std::vector<uint32_t> ids;
  std::vector<std::string> tokens;
  std::vector<Offsets> offsets;
  std::vector<uint32_t> type_ids;     // as the post-processor says; not always one for each text
  std::vector<uint8_t> special_mask;  // 1 for what the post-processor added
  std::vector<int8_t> sequences;      // the text it is of: 0 or 1; -1 for what was added
};

// "truncation" and "padding" of the file: read and handed to the caller, who batches; Encode never
// cuts or pads.
struct Truncation {
  uint32_t max_length = 0;
  uint32_t stride = 0;
  std::string strategy;   // "LongestFirst", "OnlyFirst", "OnlySecond"
  std::string direction;  // "Right", "Left"
};
struct Padding {
  std::optional<uint32_t> fixed_length;  // none: the longest of the batch
  std::string direction;                 // "Right", "Left"
  uint32_t pad_to_multiple_of = 0;
  uint32_t pad_id = 0;
  uint32_t pad_type_id = 0;
  std::string pad_token;
};

class Tokenizer {
 public:
  // The largest text that Encode takes.
  static constexpr size_t kMaxTextBytes = size_t{1} << 30;

  // kInvalidArgument with the JSON path of what is malformed, out of range or not supported.
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view json);
  static Result<std::unique_ptr<Tokenizer>> FromFile(const std::filesystem::path& path);
  ~Tokenizer();

  // kInvalidArgument for text that is not UTF-8 or too long; kResourceExhausted when a pattern of
  // the file needs too many steps or a normaliser blows the text up. Linear in the text but for BPE
  // words without a pre-tokeniser's cut, which take O(n log n).
  Result<Encoding> Encode(std::string_view text, bool add_special_tokens = true) const;
  Result<Encoding> EncodePair(std::string_view first, std::string_view second,
                              bool add_special_tokens = true) const;
  // Encode's ids alone, without the cost of the rest.
  Result<std::vector<uint32_t>> EncodeIds(std::string_view text,
                                          bool add_special_tokens = true) const;

  // Ids that name no token are skipped, as the reference does.
  Result<std::string> Decode(const std::vector<uint32_t>& ids, bool skip_special = true) const;

  // One more than the largest id, added tokens included.
  uint32_t vocab_size() const;
  std::optional<uint32_t> TokenToId(std::string_view token) const;
  std::optional<std::string> IdToToken(uint32_t id) const;
  bool IsSpecial(uint32_t id) const;

  const std::optional<Truncation>& truncation() const;
  const std::optional<Padding>& padding() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lepton::tokenizer
