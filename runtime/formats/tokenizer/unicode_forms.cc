// NFC, NFD, NFKC and NFKD (UAX #15) that keep track of origins as the reference does: a composed
// character stands for the first of those it was made of, a decomposed one's parts for the whole.
#include <utf8proc.h>

#include <algorithm>

#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

int CombiningClass(char32_t c) {
  return c < 0x300 ? 0 : utf8proc_get_property(static_cast<int>(c))->combining_class;
}

// The primary composite of two characters, or 0.
char32_t Compose(char32_t first, char32_t second) {
  if (second < 0x300) return 0;
  utf8proc_int32_t pair[2] = {static_cast<int>(first), static_cast<int>(second)};
  utf8proc_ssize_t length = utf8proc_normalize_utf32(
      pair, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  return length == 1 ? static_cast<char32_t>(pair[0]) : 0;
}

void Decompose(char32_t c, bool compatible, std::vector<Change>& out) {
  if (c < 0x80) {
    out.push_back({c, 0});
    return;
  }
  utf8proc_int32_t parts[32];
  int boundclass = 0;
  auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                (compatible ? UTF8PROC_COMPAT : 0));
  utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<int>(c), parts, 32, options, &boundclass);
  if (count < 1 || count > 32) {
    out.push_back({c, 0});
    return;
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    out.push_back({static_cast<char32_t>(parts[i]), i > 0});
  }
}

void Reorder(std::vector<Change>& changes) {
  for (size_t at = 0; at < changes.size();) {
    if (CombiningClass(changes[at].value) == 0) {
      ++at;
      continue;
    }
    size_t end = at + 1;
    while (end < changes.size() && CombiningClass(changes[end].value) != 0) ++end;
    if (end - at > 1) {
      std::stable_sort(changes.begin() + at, changes.begin() + end,
                       [](const Change& a, const Change& b) {
                         return CombiningClass(a.value) < CombiningClass(b.value);
                       });
    }
    at = end;
  }
}

// The composition algorithm; a blocked or uncomposable character stays behind its starter.
void Recompose(std::vector<Change>& changes) {
  size_t kept = 0;
  size_t starter = changes.size();  // index in the output; size() when there is none
  int last_class = -1;              // of the last character kept behind the starter; -1: none
  for (size_t i = 0; i < changes.size(); ++i) {
    Change now = changes[i];
    int now_class = CombiningClass(now.value);
    if (starter < kept && (last_class < now_class)) {
      if (char32_t composed = Compose(changes[starter].value, now.value)) {
        changes[starter].value = composed;
        changes[starter].change += now.change - 1;
        continue;
      }
    }
    if (now_class == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = now_class;
    }
    changes[kept++] = now;
  }
  changes.resize(kept);
}

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(UnicodeForm form)
      : compatible_(form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd),
        compose_(form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) {}

  Result<Piece> Apply(const Piece& piece, TextArena& arena) const override {
    if (IsAscii(piece.text)) return piece;
    std::vector<Change> changes;
    changes.reserve(piece.text.size());
    for (size_t at = 0; at < piece.text.size();) {
      Decompose(NextCodePoint(piece.text, at), compatible_, changes);
    }
    Reorder(changes);
    if (compose_) Recompose(changes);
    return Transform(piece, changes, arena);
  }

 private:
  bool compatible_;
  bool compose_;
};

}  // namespace

NormalizerPtr MakeUnicodeNormalizer(UnicodeForm form) {
  return std::make_unique<UnicodeNormalizer>(form);
}

}  // namespace lepton::tokenizer
