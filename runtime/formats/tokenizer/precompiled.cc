// SentencePiece's precompiled normalisation map: a Darts double array from character sequences to
// offsets into a block of zero-terminated replacements. All of it comes from a file, so every index
// is checked.
#include <utf8proc.h>

#include <array>
#include <cstring>

#include "runtime/base/utf8.h"
#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr size_t kMaxMapBytes = size_t{64} << 20;

Result<std::string> DecodeBase64(std::string_view text) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int, 256> value;
  value.fill(-1);
  for (size_t i = 0; i < kAlphabet.size(); ++i) value[static_cast<uint8_t>(kAlphabet[i])] = i;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    int digit = value[static_cast<uint8_t>(c)];
    if (digit < 0) return InvalidArgument("not base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return out;
}

class Precompiled : public Normalizer {
 public:
  Precompiled(std::vector<uint32_t> units, std::string replacements)
      : units_(std::move(units)), replacements_(std::move(replacements)) {}

  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    std::vector<Change> changes;
    bool changed = false;
    size_t budget = arena.budget();
    for (size_t at = 0; at < piece.text.size();) {
      size_t end = GraphemeEnd(piece.text, at);
      std::string_view grapheme = piece.text.substr(at, end - at);
      at = end;
      std::string_view replacement;
      if (grapheme.size() < 6 && Find(grapheme, replacement)) {
        Replace(grapheme, replacement, changes);
        changed = true;
        continue;
      }
      for (size_t i = 0; i < grapheme.size();) {
        size_t begin = i;
        char32_t c = NextCodePoint(grapheme, i);
        if (Find(grapheme.substr(begin, i - begin), replacement)) {
          Replace(grapheme.substr(begin, i - begin), replacement, changes);
          changed = true;
        } else {
          changes.push_back({c, 0});
        }
      }
      if (changes.size() > budget) {
        return ResourceExhausted("the tokenizer's normalizer makes the text too long");
      }
    }
    return changed ? Transform(piece, changes, arena) : piece;
  }

 private:
  static size_t GraphemeEnd(std::string_view text, size_t at) {
    utf8proc_int32_t state = 0;
    char32_t before = NextCodePoint(text, at);
    while (at < text.size()) {
      size_t next = at;
      char32_t c = NextCodePoint(text, next);
      if (utf8proc_grapheme_break_stateful(static_cast<int>(before), static_cast<int>(c), &state)) {
        break;
      }
      before = c;
      at = next;
    }
    return at;
  }

  // The replacement of the shortest key that `text` starts with (sic: as the reference does).
  bool Find(std::string_view text, std::string_view& replacement) const {
    size_t node = 0;
    uint32_t unit = units_[0];
    node ^= Offset(unit);
    for (char c : text) {
      auto byte = static_cast<uint8_t>(c);
      if (byte == 0) return false;
      node ^= byte;
      if (node >= units_.size()) return false;
      unit = units_[node];
      if ((unit & (1u << 31 | 0xFF)) != byte) return false;
      node ^= Offset(unit);
      if (node >= units_.size()) return false;
      if (unit >> 8 & 1) {
        size_t begin = units_[node] & 0x7FFFFFFF;
        if (begin > replacements_.size()) return false;
        if ((replacements_.c_str()[begin] & 0xC0) == 0x80) return false;  // inside a character
        replacement = std::string_view(replacements_.c_str() + begin);
        return true;
      }
    }
    return false;
  }

  static size_t Offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & (1u << 9)) >> 6); }

  static void Replace(std::string_view old_part, std::string_view new_part,
                      std::vector<Change>& changes) {
    int difference = 0;
    for (char c : old_part) difference -= (c & 0xC0) != 0x80;
    for (size_t at = 0; at < new_part.size();) {
      changes.push_back({NextCodePoint(new_part, at), 0});
      ++difference;
    }
    for (int i = 0; i < difference; ++i) changes[changes.size() - 1 - i].change = 1;
    if (difference < 0 && !changes.empty()) changes.back().change += difference;
  }

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace

Result<NormalizerPtr> MakePrecompiled(std::string_view base64_map) {
  LEPTON_ASSIGN_OR_RETURN(std::string map, DecodeBase64(base64_map));
  if (map.size() > kMaxMapBytes) return InvalidArgument("over 64 MiB");
  uint32_t trie_bytes = 0;
  if (map.size() < 8) return InvalidArgument("too short");
  std::memcpy(&trie_bytes, map.data(), 4);
  if (trie_bytes < 4 || trie_bytes % 4 || trie_bytes > map.size() - 4) {
    return InvalidArgument("its trie does not fit in it");
  }
  std::vector<uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), map.data() + 4, trie_bytes);
  std::string replacements = map.substr(4 + trie_bytes);
  if (InvalidUtf8At(replacements)) return InvalidArgument("its replacements are not UTF-8");
  return NormalizerPtr(std::make_unique<Precompiled>(std::move(units), std::move(replacements)));
}

}  // namespace lepton::tokenizer
