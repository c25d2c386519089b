#include "runtime/formats/tokenizer/pre_tokenizer.h"

#include "runtime/formats/tokenizer/gpt2_scanner.h"
#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

// A stretch of a piece, and whether the delimiter matched it. Stretches tile the piece.
struct Stretch {
  size_t begin, end;
  bool match;
};

std::vector<Stretch> Tile(size_t size, const std::vector<Span>& matches, bool invert) {
  std::vector<Stretch> stretches;
  size_t done = 0;
  for (Span match : matches) {
    if (match.begin > done) stretches.push_back({done, match.begin, invert});
    stretches.push_back({match.begin, match.end, !invert});
    done = match.end;
  }
  if (done < size) stretches.push_back({done, size, invert});
  return stretches;
}

// Each character for which `is` holds is a match of its own.
template <typename Is>
std::vector<Stretch> TileChars(std::string_view text, Is is) {
  std::vector<Stretch> stretches;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    size_t begin = at;
    if (!is(NextCodePoint(text, at))) continue;
    if (begin > done) stretches.push_back({done, begin, false});
    stretches.push_back({begin, at, true});
    done = at;
  }
  if (done < text.size()) stretches.push_back({done, text.size(), false});
  return stretches;
}

// Removed drops the matches; the other behaviours join stretches with their neighbours.
void Cut(const Piece& piece, const std::vector<Stretch>& stretches, Behavior behavior,
         std::vector<Piece>& out) {
  auto emit = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back(piece.Sub(begin, end));
  };
  for (size_t i = 0; i < stretches.size();) {
    size_t j = i + 1;  // the stretches [i, j) stay together
    bool match = stretches[i].match;
    switch (behavior) {
      case Behavior::kRemoved:
        if (match) {
          ++i;
          continue;
        }
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kContiguous:
        while (j < stretches.size() && stretches[j].match == match) ++j;
        break;
      case Behavior::kMergedWithPrevious:
        if (!match && j < stretches.size() && stretches[j].match) ++j;
        break;
      case Behavior::kMergedWithNext:
        if (match && j < stretches.size() && !stretches[j].match) ++j;
        break;
    }
    emit(stretches[i].begin, stretches[j - 1].end);
    i = j;
  }
}

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const ByteLevelOptions& options) : options_(options) {}
  Status Apply(const Piece& piece, TextArena& arena, std::vector<Piece>& out) const override {
    Piece now = piece;
    if (options_.add_prefix_space && !piece.text.starts_with(' ')) {
      LEPTON_ASSIGN_OR_RETURN(now, Prepend(now, " ", arena));
    }
    size_t first = out.size();
    if (options_.use_regex) {
      ScanGpt2(now.text, [&](size_t begin, size_t end) { out.push_back(now.Sub(begin, end)); });
    } else {
      out.push_back(now);
    }
    if (!options_.map_bytes) return {};
    for (size_t i = first; i < out.size(); ++i) {
      LEPTON_ASSIGN_OR_RETURN(out[i], MapBytes(out[i], arena));
    }
    return {};
  }

 private:
  ByteLevelOptions options_;
};

// \w+|[^\w\s]+, the rest removed.
class Whitespace : public PreTokenizer {
 public:
  Status Apply(const Piece& piece, TextArena&, std::vector<Piece>& out) const override {
    size_t begin = 0;
    int kind = kSpace;
    auto flush = [&](size_t end) {
      if (kind != kSpace && begin < end) out.push_back(piece.Sub(begin, end));
    };
    for (size_t at = 0; at < piece.text.size();) {
      size_t start = at;
      char32_t c = NextCodePoint(piece.text, at);
      int now = IsWordCharacter(c) ? kWord : IsWhiteSpace(c) ? kSpace : kOther;
      if (now == kind) continue;
      flush(start);
      kind = now;
      begin = start;
    }
    flush(piece.text.size());
    return {};
  }

 private:
  enum { kSpace, kWord, kOther };
};

class WhitespaceSplit : public PreTokenizer {
 public:
  Status Apply(const Piece& piece, TextArena&, std::vector<Piece>& out) const override {
    Cut(piece, TileChars(piece.text, IsWhiteSpace), Behavior::kRemoved, out);
    return {};
  }
};

class BertPreTokenizer : public PreTokenizer {
 public:
  Status Apply(const Piece& piece, TextArena&, std::vector<Piece>& out) const override {
    size_t begin = 0;
    auto flush = [&](size_t end) {
      if (begin < end) out.push_back(piece.Sub(begin, end));
    };
    for (size_t at = 0; at < piece.text.size();) {
      size_t start = at;
      char32_t c = NextCodePoint(piece.text, at);
      bool space = IsWhiteSpace(c);
      if (!space && !IsPunctuation(c)) continue;
      flush(start);
      if (!space) out.push_back(piece.Sub(start, at));
      begin = at;
    }
    flush(piece.text.size());
    return {};
  }
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(char32_t replacement, PrependScheme scheme, bool split)
      : replacement_(ToUtf8(replacement)), scheme_(scheme), split_(split) {}
  Status Apply(const Piece& piece, TextArena& arena, std::vector<Piece>& out) const override {
    std::vector<Span> matches;
    FindAllPlain(piece.text, " ", matches);
    LEPTON_ASSIGN_OR_RETURN(Piece now, ReplaceMatches(piece, matches, replacement_, arena));
    bool prepend = scheme_ == PrependScheme::kAlways ||
                   (scheme_ == PrependScheme::kFirst && now.CharOrigin(0).begin == 0);
    if (prepend && !now.text.starts_with(replacement_)) {
      LEPTON_ASSIGN_OR_RETURN(now, Prepend(now, replacement_, arena));
    }
    if (!split_) {
      out.push_back(now);
      return {};
    }
    FindAllPlain(now.text, replacement_, matches);
    Cut(now, Tile(now.text.size(), matches, false), Behavior::kMergedWithNext, out);
    return {};
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class Split : public PreTokenizer {
 public:
  Split(std::string pattern, std::unique_ptr<Regex> regex, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)),
        regex_(std::move(regex)),
        behavior_(behavior),
        invert_(invert) {}
  Status Apply(const Piece& piece, TextArena&, std::vector<Piece>& out) const override {
    std::vector<Span> matches;
    if (regex_) {
      LEPTON_RETURN_IF_ERROR(regex_->FindAll(piece.text, matches));
    } else {
      FindAllPlain(piece.text, pattern_, matches);
    }
    Cut(piece, Tile(piece.text.size(), matches, invert_), behavior_, out);
    return {};
  }

 private:
  std::string pattern_;
  std::unique_ptr<Regex> regex_;
  Behavior behavior_;
  bool invert_;
};

class CharClassSplit : public PreTokenizer {
 public:
  CharClassSplit(bool (*is)(char32_t), Behavior behavior) : is_(is), behavior_(behavior) {}
  Status Apply(const Piece& piece, TextArena&, std::vector<Piece>& out) const override {
    Cut(piece, TileChars(piece.text, is_), behavior_, out);
    return {};
  }

 private:
  bool (*is_)(char32_t);
  Behavior behavior_;
};

}  // namespace

PreTokenizerPtr MakeByteLevel(const ByteLevelOptions& options) {
  return std::make_unique<ByteLevel>(options);
}
PreTokenizerPtr MakeWhitespace() {
  return std::make_unique<Whitespace>();
}
PreTokenizerPtr MakeWhitespaceSplit() {
  return std::make_unique<WhitespaceSplit>();
}
PreTokenizerPtr MakeBertPreTokenizer() {
  return std::make_unique<BertPreTokenizer>();
}
PreTokenizerPtr MakeMetaspace(char32_t replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(replacement, scheme, split);
}
PreTokenizerPtr MakeSplit(std::string pattern, std::unique_ptr<Regex> regex, Behavior behavior,
                          bool invert) {
  return std::make_unique<Split>(std::move(pattern), std::move(regex), behavior, invert);
}
PreTokenizerPtr MakeDigits(bool individual) {
  return std::make_unique<CharClassSplit>(IsNumber,
                                          individual ? Behavior::kIsolated : Behavior::kContiguous);
}
PreTokenizerPtr MakePunctuation(Behavior behavior) {
  return std::make_unique<CharClassSplit>(IsPunctuation, behavior);
}

}  // namespace lepton::tokenizer
