#include "runtime/formats/tokenizer/added_tokens.h"

#include <algorithm>

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

char32_t CharBefore(std::string_view text, size_t at) {
  size_t begin = at - 1;
  while ((text[begin] & 0xC0) == 0x80) --begin;
  return NextCodePoint(text, begin);
}

char32_t CharAt(std::string_view text, size_t at) {
  return NextCodePoint(text, at);
}

size_t SkipSpacesBack(std::string_view text, size_t at, size_t stop) {
  while (at > stop && IsWhiteSpace(CharBefore(text, at))) {
    do {
      --at;
    } while ((text[at] & 0xC0) == 0x80);
  }
  return at;
}

size_t SkipSpaces(std::string_view text, size_t at) {
  while (at < text.size() && IsWhiteSpace(CharAt(text, at))) NextCodePoint(text, at);
  return at;
}

bool TouchesWord(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && IsWordCharacter(CharBefore(text, begin))) ||
         (end < text.size() && IsWordCharacter(CharAt(text, end)));
}

}  // namespace

Status AddedTokens::Prepare(std::vector<AddedToken> tokens, const Normalizer* normalizer) {
  tokens_ = std::move(tokens);
  normalized_.reserve(tokens_.size());
  std::vector<PrefixTrie::Key> before, after;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (!by_id_.emplace(token.id, i).second) {
      return InvalidArgument("added_tokens: id " + std::to_string(token.id) + " comes twice");
    }
    if (!by_content_.emplace(token.content, i).second) {
      return InvalidArgument("added_tokens: '" + token.content + "' comes twice");
    }
    id_end_ = std::max(id_end_, token.id + 1);
    auto index = static_cast<uint32_t>(i);
    if (!token.normalized) {
      before.push_back({token.content, index});
      continue;
    }
    normalized_.push_back(token.content);
    if (normalizer) {
      TextArena arena(token.content.size());
      LEPTON_ASSIGN_OR_RETURN(Piece piece, normalizer->Apply(Piece{token.content}, arena));
      normalized_.back() = piece.text;
    }
    if (!normalized_.back().empty()) after.push_back({normalized_.back(), index});
  }
  before_ = PrefixTrie(std::move(before));
  after_ = PrefixTrie(std::move(after));
  return {};
}

Status AddedTokens::Split(std::string_view text, const Normalizer* normalizer, TextArena& arena,
                          std::vector<Piece>& out) const {
  if (text.empty()) return {};
  std::vector<Piece> raw;
  Cut(Piece{text}, before_, raw);
  for (const Piece& piece : raw) {
    if (piece.token >= 0) {
      out.push_back(piece);
      continue;
    }
    Piece now = piece;
    if (normalizer) {
      LEPTON_ASSIGN_OR_RETURN(now, normalizer->Apply(piece, arena));
    }
    if (!now.text.empty()) Cut(now, after_, out);
  }
  return {};
}

void AddedTokens::Cut(const Piece& piece, const PrefixTrie& trie, std::vector<Piece>& out) const {
  if (trie.empty()) {
    out.push_back(piece);
    return;
  }
  std::string_view text = piece.text;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!trie.MayStartWith(text[at])) {
      ++at;
      continue;
    }
    size_t length = 0;
    uint32_t index = 0;
    trie.ForEachPrefix(text.substr(at), [&](size_t found, uint32_t value) {
      length = found;
      index = value;
    });
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at, end = at + length;
    at = end;  // also behind a match that does not count, as the reference's automaton does
    if (token.single_word && TouchesWord(text, begin, end)) continue;
    if (token.lstrip) begin = SkipSpacesBack(text, begin, done);
    if (token.rstrip) end = SkipSpaces(text, end);
    begin = std::max(begin, done);
    end = std::max(end, begin);
    if (begin > done) out.push_back(piece.Sub(done, begin));
    if (end > begin) {
      out.push_back(piece.Sub(begin, end));
      out.back().token = static_cast<int32_t>(token.id);
    }
    done = end;
  }
  if (done < text.size()) out.push_back(piece.Sub(done, text.size()));
}

const AddedToken* AddedTokens::Find(uint32_t id) const {
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Find(std::string_view content) const {
  auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace lepton::tokenizer
