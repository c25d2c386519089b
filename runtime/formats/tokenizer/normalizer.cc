#include "runtime/formats/tokenizer/normalizer.h"

#include <utf8proc.h>

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

// Keeps the characters for which `keep` holds; they keep their origins.
template <typename Keep>
Result<Piece> Filter(const Piece& piece, TextArena& arena, Keep keep) {
  TextArena::Buffer buffer;
  bool changed = false;
  for (size_t at = 0; at < piece.text.size();) {
    size_t begin = at;
    char32_t c = NextCodePoint(piece.text, at);
    if (keep(c)) {
      if (!changed) continue;
      buffer.text += piece.text.substr(begin, at - begin);
      buffer.origin.insert(buffer.origin.end(), at - begin, piece.CharOrigin(begin));
      continue;
    }
    if (changed) continue;
    changed = true;
    for (size_t i = 0; i < begin;) {
      Span origin = piece.CharOrigin(i);
      size_t start = i;
      NextCodePoint(piece.text, i);
      buffer.text += piece.text.substr(start, i - start);
      buffer.origin.insert(buffer.origin.end(), i - start, origin);
    }
  }
  if (!changed) return piece;
  return arena.Keep(std::move(buffer));
}

class Lowercase : public Normalizer {
 public:
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    std::vector<Change> changes;
    bool changed = false;
    for (size_t at = 0; at < piece.text.size();) {
      char32_t c = NextCodePoint(piece.text, at);
      if (c == 0x130) {  // the only character that lower-cases to two
        changes.push_back({'i', 0});
        changes.push_back({0x307, 1});
        changed = true;
        continue;
      }
      char32_t lower = c < 0x80 ? (c >= 'A' && c <= 'Z' ? c + 32 : c)
                                : static_cast<char32_t>(utf8proc_tolower(static_cast<int>(c)));
      changed |= lower != c;
      changes.push_back({lower, 0});
    }
    return changed ? Transform(piece, changes, arena) : piece;
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Result<Piece> Apply(const Piece& piece, TextArena&) const override {
    size_t begin = piece.text.size(), end = 0;
    for (size_t at = 0; at < piece.text.size();) {
      size_t start = at;
      if (IsWhiteSpace(NextCodePoint(piece.text, at))) continue;
      begin = std::min(begin, start);
      end = at;
    }
    if (!left_) begin = 0;
    if (!right_) end = piece.text.size();
    return piece.Sub(begin, std::max(begin, end));
  }

 private:
  bool left_, right_;
};

class StripAccents : public Normalizer {
 public:
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    if (IsAscii(piece.text)) return piece;
    return Filter(piece, arena, [](char32_t c) { return !IsMark(c); });
  }
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    return Prepend(piece, prefix_, arena);
  }

 private:
  std::string prefix_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    return MapBytes(piece, arena);
  }
};

class Replace : public Normalizer {
 public:
  Replace(std::string pattern, std::unique_ptr<Regex> regex, std::string content)
      : pattern_(std::move(pattern)), regex_(std::move(regex)), content_(std::move(content)) {}
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    std::vector<Span> matches;
    if (regex_) {
      LEPTON_RETURN_IF_ERROR(regex_->FindAll(piece.text, matches));
    } else {
      FindAllPlain(piece.text, pattern_, matches);
    }
    return ReplaceMatches(piece, matches, content_, arena);
  }

 private:
  std::string pattern_;
  std::unique_ptr<Regex> regex_;
  std::string content_;
};

class Bert : public Normalizer {
 public:
  explicit Bert(const BertOptions& options) : options_(options) {}
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    Piece now = piece;
    if (options_.clean_text) {
      LEPTON_ASSIGN_OR_RETURN(now, Clean(now, arena));
    }
    if (options_.handle_chinese_chars && !IsAscii(now.text)) {
      LEPTON_ASSIGN_OR_RETURN(now, SpaceChinese(now, arena));
    }
    if (options_.strip_accents && !IsAscii(now.text)) {
      LEPTON_ASSIGN_OR_RETURN(now, nfd_->Apply(now, arena));
      LEPTON_ASSIGN_OR_RETURN(now,
                              Filter(now, arena, [](char32_t c) { return !IsNonspacingMark(c); }));
    }
    if (options_.lowercase) return lowercase_.Apply(now, arena);
    return now;
  }

 private:
  static Result<Piece> Clean(const Piece& piece, TextArena& arena) {
    LEPTON_ASSIGN_OR_RETURN(Piece kept, Filter(piece, arena, [](char32_t c) {
                              return c != 0 && c != 0xFFFD && !IsBertControl(c);
                            }));
    std::vector<Change> changes;
    bool changed = false;
    for (size_t at = 0; at < kept.text.size();) {
      char32_t c = NextCodePoint(kept.text, at);
      char32_t clean = IsWhiteSpace(c) ? U' ' : c;
      changed |= clean != c;
      changes.push_back({clean, 0});
    }
    return changed ? Transform(kept, changes, arena) : kept;
  }

  static Result<Piece> SpaceChinese(const Piece& piece, TextArena& arena) {
    std::vector<Change> changes;
    bool changed = false;
    for (size_t at = 0; at < piece.text.size();) {
      char32_t c = NextCodePoint(piece.text, at);
      if (!IsChinese(c)) {
        changes.push_back({c, 0});
        continue;
      }
      changed = true;
      changes.insert(changes.end(), {{U' ', 0}, {c, 1}, {U' ', 1}});
    }
    return changed ? Transform(piece, changes, arena) : piece;
  }

  BertOptions options_;
  Lowercase lowercase_;
  NormalizerPtr nfd_ = MakeUnicodeNormalizer(UnicodeForm::kNfd);
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<NormalizerPtr> all) : all_(std::move(all)) {}
  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    Piece now = piece;
    for (const NormalizerPtr& one : all_) {
      LEPTON_ASSIGN_OR_RETURN(now, one->Apply(now, arena));
    }
    return now;
  }

 private:
  std::vector<NormalizerPtr> all_;
};

}  // namespace

void FindAllPlain(std::string_view text, std::string_view pattern, std::vector<Span>& matches) {
  matches.clear();
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, at + pattern.size())) {
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + pattern.size())});
  }
}

NormalizerPtr MakeLowercase() {
  return std::make_unique<Lowercase>();
}
NormalizerPtr MakeStrip(bool left, bool right) {
  return std::make_unique<Strip>(left, right);
}
NormalizerPtr MakeStripAccents() {
  return std::make_unique<StripAccents>();
}
NormalizerPtr MakePrepend(std::string prefix) {
  return std::make_unique<PrependNormalizer>(std::move(prefix));
}
NormalizerPtr MakeByteLevelNormalizer() {
  return std::make_unique<ByteLevelNormalizer>();
}
NormalizerPtr MakeBertNormalizer(const BertOptions& options) {
  return std::make_unique<Bert>(options);
}
NormalizerPtr MakeReplace(std::string pattern, std::unique_ptr<Regex> regex, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(regex), std::move(content));
}
NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> all) {
  return std::make_unique<NormalizerSequence>(std::move(all));
}

}  // namespace lepton::tokenizer
