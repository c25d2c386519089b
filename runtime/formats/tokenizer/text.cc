#include "runtime/formats/tokenizer/text.h"

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

void AppendAligned(TextArena::Buffer& buffer, std::string_view text, Span origin) {
  buffer.text += text;
  buffer.origin.insert(buffer.origin.end(), text.size(), origin);
}

void AppendChar(TextArena::Buffer& buffer, char32_t c, Span origin) {
  size_t before = buffer.text.size();
  AppendUtf8(c, buffer.text);
  buffer.origin.insert(buffer.origin.end(), buffer.text.size() - before, origin);
}

void CopyAligned(TextArena::Buffer& buffer, const Piece& piece, size_t begin, size_t end) {
  buffer.text += piece.text.substr(begin, end - begin);
  if (piece.origin) {
    buffer.origin.insert(buffer.origin.end(), piece.origin + begin, piece.origin + end);
    return;
  }
  for (size_t at = begin; at < end;) {
    size_t length = Utf8Length(static_cast<unsigned char>(piece.text[at]));
    buffer.origin.insert(buffer.origin.end(), length, piece.CharOrigin(at));
    at += length;
  }
}

size_t PreviousChar(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

Status Exhausted() {
  return ResourceExhausted("the tokenizer's normalizer makes the text too long");
}

}  // namespace

Span Piece::CharOrigin(size_t begin) const {
  if (origin) return origin[begin];
  return Origin(begin, begin + Utf8Length(static_cast<unsigned char>(text[begin])));
}

Result<Piece> TextArena::Keep(Buffer buffer) {
  if (buffer.text.size() + 64 > budget_) return Exhausted();
  budget_ -= buffer.text.size() + 64;  // 64: an empty buffer is not free either
  buffers_.push_back(std::move(buffer));
  const Buffer& kept = buffers_.back();
  static const Span kNoOrigin;
  return Piece{kept.text, kept.origin.empty() ? &kNoOrigin : kept.origin.data(), 0, -1};
}

Result<Piece> Transform(const Piece& piece, const std::vector<Change>& changes, TextArena& arena) {
  TextArena::Buffer buffer;
  buffer.text.reserve(piece.text.size());
  buffer.origin.reserve(piece.text.size());
  size_t at = 0;
  Span last;  // of the character before `at`
  for (const Change& change : changes) {
    if (change.change > 0 || at >= piece.text.size()) {
      AppendChar(buffer, change.value, last);
      continue;
    }
    Span origin = piece.CharOrigin(at);
    for (int i = 0; i <= -change.change && at < piece.text.size(); ++i) {
      last = piece.CharOrigin(at);
      NextCodePoint(piece.text, at);
    }
    AppendChar(buffer, change.value, origin);
    if (buffer.text.size() > arena.budget()) return Exhausted();
  }
  return arena.Keep(std::move(buffer));
}

Result<Piece> Prepend(const Piece& piece, std::string_view prefix, TextArena& arena) {
  if (piece.text.empty() || prefix.empty()) return piece;
  if (prefix.size() + piece.text.size() > arena.budget()) return Exhausted();
  TextArena::Buffer buffer;
  buffer.text.reserve(piece.text.size() + prefix.size());
  buffer.origin.reserve(piece.text.size() + prefix.size());
  AppendAligned(buffer, prefix, piece.CharOrigin(0));
  CopyAligned(buffer, piece, 0, piece.text.size());
  return arena.Keep(std::move(buffer));
}

Result<Piece> ReplaceMatches(const Piece& piece, const std::vector<Span>& matches,
                             std::string_view content, TextArena& arena) {
  if (matches.empty()) return piece;
  TextArena::Buffer buffer;
  buffer.text.reserve(piece.text.size());
  buffer.origin.reserve(piece.text.size());
  size_t done = 0;
  for (Span match : matches) {
    CopyAligned(buffer, piece, done, match.begin);
    if (buffer.text.size() + content.size() > arena.budget()) return Exhausted();
    Span origin = match.end == 0 ? Span{} : piece.CharOrigin(PreviousChar(piece.text, match.end));
    AppendAligned(buffer, content, origin);
    done = match.end;
  }
  CopyAligned(buffer, piece, done, piece.text.size());
  return arena.Keep(std::move(buffer));
}

Result<Piece> MapBytes(const Piece& piece, TextArena& arena) {
  if (2 * piece.text.size() > arena.budget()) return Exhausted();
  TextArena::Buffer buffer;
  buffer.text.reserve(2 * piece.text.size());
  buffer.origin.reserve(2 * piece.text.size());
  for (size_t at = 0; at < piece.text.size();) {
    Span origin = piece.CharOrigin(at);
    size_t end = at + Utf8Length(static_cast<unsigned char>(piece.text[at]));
    for (; at < end; ++at) {
      AppendChar(buffer, ByteToChar(static_cast<uint8_t>(piece.text[at])), origin);
    }
  }
  return arena.Keep(std::move(buffer));
}

}  // namespace lepton::tokenizer
