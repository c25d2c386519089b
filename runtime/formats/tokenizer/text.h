// Text on its way through normalisers and pre-tokenisers, which remembers for each byte where in
// the original it came from (Hugging Face calls it NormalizedString).
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

struct Span {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// A view: `text` and `origin` live in the original or in a TextArena.
struct Piece {
  std::string_view text;
  // Per byte of `text`, the bytes of the original it stands for; null: `text` is the original's
  // bytes from `shift` on.
  const Span* origin = nullptr;
  uint32_t shift = 0;
  int32_t token = -1;  // the id of the added token that this piece is, or -1

  Piece Sub(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), origin ? origin + begin : nullptr,
            origin ? 0 : shift + static_cast<uint32_t>(begin), -1};
  }
  // Where the bytes [begin, end) of `text` came from; begin < end.
  Span Origin(size_t begin, size_t end) const {
    if (origin) return {origin[begin].begin, origin[end - 1].end};
    return {shift + static_cast<uint32_t>(begin), shift + static_cast<uint32_t>(end)};
  }
  // The same for a single character at `begin`, with a whole character's span.
  Span CharOrigin(size_t begin) const;
};

// What a changed piece borrows from. It refuses to grow without bound, which a hostile chain of
// normalisers would make it do.
class TextArena {
 public:
  struct Buffer {
    std::string text;
    std::vector<Span> origin;
  };
  explicit TextArena(size_t original_bytes) : budget_(64 * original_bytes + (size_t{1} << 22)) {}
  // kResourceExhausted beyond the budget.
  Result<Piece> Keep(Buffer buffer);
  size_t budget() const { return budget_; }

 private:
  size_t budget_;
  std::deque<Buffer> buffers_;
};

// One character of the changed text. change 0: it replaces one character; change > 0: it is
// inserted; change < 0: it replaces one and the -change next ones vanish.
struct Change {
  char32_t value;
  int change;
};

// The reference's NormalizedString::transform: the changes cover all of `piece`.
Result<Piece> Transform(const Piece& piece, const std::vector<Change>& changes, TextArena& arena);
// `prefix` before the text, standing for its first character; nothing happens to an empty piece.
Result<Piece> Prepend(const Piece& piece, std::string_view prefix, TextArena& arena);
// Each of `matches` (ascending, disjoint) replaced by `content`, which stands for the match's last
// character.
Result<Piece> ReplaceMatches(const Piece& piece, const std::vector<Span>& matches,
                             std::string_view content, TextArena& arena);
// Each character by those of its UTF-8 bytes in GPT-2's table.
Result<Piece> MapBytes(const Piece& piece, TextArena& arena);

}  // namespace lepton::tokenizer
