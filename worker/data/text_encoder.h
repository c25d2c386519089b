// Text into token ids and back: bytes, or a tokenizer.json.
// Threads: immutable; any. Ownership: shared by the data that was encoded with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/formats/tokenizer/tokenizer.h"
#include "storage/objects/object_store.h"
#include "worker/data/text_rows.h"

namespace lepton::worker {

class TextEncoder {
 public:
  // `name`: "bytes", or the digest of a tokenizer.json among `objects`.
  static Result<std::shared_ptr<const TextEncoder>> Load(const storage::ObjectStore& objects,
                                                         const std::string& name);

  const std::string& name() const { return name_; }
  bool bytes() const { return tokenizer_ == nullptr; }
  // Ids are in [0, vocabulary()); 256 for bytes.
  int64_t vocabulary() const;

  // Part of a running text: no tokens are added.
  Result<std::vector<uint32_t>> EncodeStream(std::string_view text) const;
  // One text, or a pair, with what the tokenizer adds to such, cut to `context` tokens: the longer
  // text loses its end first, added tokens stay. Never empty: an empty text is the id 0. A pair of
  // bytes has a zero byte between.
  Result<TokenText> EncodeText(std::string_view text, int64_t context) const;
  Result<TokenText> EncodePair(std::string_view first, std::string_view second,
                               int64_t context) const;

  // Bytes that are not UTF-8 become U+FFFD.
  Result<std::string> Decode(const std::vector<uint32_t>& ids) const;
  // Whether generation ends at this id: the tokenizer's end-of-text token, by its usual names.
  bool IsEnd(uint32_t id) const;

 private:
  TextEncoder() = default;
  std::string name_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;  // nullptr: bytes
  std::vector<uint32_t> ends_;
};

// "bytes" as a tokenizer.json for other programs: each byte is a token under its value, by the
// letter that byte-level tokenizers have for it, and pairs have the zero byte between.
std::string BytesAsTokenizerJson();

}  // namespace lepton::worker
