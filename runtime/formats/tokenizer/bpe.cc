#include "runtime/formats/tokenizer/bpe.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr size_t kScanLimit = 48;
constexpr uint32_t kNoRank = UINT32_MAX;

struct Merge {
  uint32_t rank = kNoRank;
  uint32_t id = 0;
};

// (left id, right id) -> merge, open addressing at a load of at most a half.
class MergeTable {
 public:
  explicit MergeTable(size_t count) {
    while (slots_size_ < 2 * count) slots_size_ *= 2, --shift_;
    slots_.resize(slots_size_);
  }
  void Set(uint32_t left, uint32_t right, Merge merge) {
    Slot& slot = slots_[Position(Key(left, right))];
    slot.key = Key(left, right);
    slot.merge = merge;
  }
  Merge Find(uint32_t left, uint32_t right) const {
    const Slot& slot = slots_[Position(Key(left, right))];
    return slot.key == kEmpty ? Merge{} : slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static uint64_t Key(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }
  size_t Position(uint64_t key) const {
    uint64_t mixed = (key ^ key >> 29) * 0x9E3779B97F4A7C15u;
    size_t at = mixed >> shift_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_size_ - 1);
    return at;
  }
  size_t slots_size_ = 16;
  int shift_ = 60;
  std::vector<Slot> slots_;
};

struct Symbol {
  uint32_t id;
  uint32_t length;  // bytes
};

class Bpe : public Model {
 public:
  Bpe(Vocabulary vocabulary, BpeOptions options)
      : Model(std::move(vocabulary)),
        options_(std::move(options)),
        merges_(options_.merges.size()) {}

  Status Prepare() {
    if (!options_.unk_token.empty()) {
      unk_ = vocabulary_.Find(options_.unk_token);
      if (!unk_) return InvalidArgument("unk_token: '" + options_.unk_token + "' is not in vocab");
    }
    fallback_ = ByteFallbackIds(vocabulary_);
    for (int byte = 0; byte < 256; ++byte) {
      auto id = vocabulary_.Find(ToUtf8(ByteToChar(static_cast<uint8_t>(byte))));
      raw_ids_[byte] = id ? int64_t{*id} : -1;
    }
    LEPTON_RETURN_IF_ERROR(PrepareMerges());
    options_.merges.clear();
    options_.merges.shrink_to_fit();
    if (options_.raw_bytes && options_.ignore_merges) PrepareRawWords();
    return {};
  }

  bool takes_raw_bytes() const override { return options_.raw_bytes; }

  Status Tokenize(std::string_view word, Workspace& workspace,
                  std::vector<Part>& parts) const override {
    if (word.size() > WordCache::kMaxWord) {
      TokenizeUncached(word, parts);
      return {};
    }
    bool hit = false;
    WordCache::Slot& slot = workspace.cache.Find(word, hit);
    if (hit) {
      uint32_t at = 0;
      for (int i = 0; i < slot.tokens; ++i) {
        parts.push_back({slot.ids[i], at, at + slot.lengths[i]});
        at += slot.lengths[i];
      }
      return {};
    }
    size_t first = parts.size();
    TokenizeUncached(word, parts);
    size_t count = parts.size() - first;
    if (count > WordCache::kMaxTokens) return {};
    // The cache has lengths alone, which must be those of parts in a row.
    for (size_t i = first, at = 0; i < parts.size(); at = parts[i++].end) {
      if (parts[i].begin != at) return {};
    }
    for (size_t i = 0; i < count; ++i) {
      slot.ids[i] = parts[first + i].id;
      slot.lengths[i] = static_cast<uint8_t>(parts[first + i].end - parts[first + i].begin);
    }
    slot.tokens = static_cast<uint8_t>(count);
    WordCache::Fill(slot, word);
    return {};
  }

 private:
  Status PrepareMerges() {
    size_t prefix = options_.continuing_subword_prefix.size();
    for (size_t rank = 0; rank < options_.merges.size(); ++rank) {
      const auto& [left, right] = options_.merges[rank];
      std::string where = "merges[" + std::to_string(rank) + "]: ";
      auto left_id = vocabulary_.Find(left), right_id = vocabulary_.Find(right);
      if (!left_id || !right_id) {
        return InvalidArgument(where + "'" + (left_id ? right : left) + "' is not in vocab");
      }
      if (prefix > right.size()) {
        return InvalidArgument(where + "'" + right + "' lacks the continuing_subword_prefix");
      }
      std::string merged = left + right.substr(prefix);
      auto id = vocabulary_.Find(merged);
      if (!id) return InvalidArgument(where + "the merged '" + merged + "' is not in vocab");
      merges_.Set(*left_id, *right_id, {static_cast<uint32_t>(rank), *id});
    }
    return {};
  }

  void PrepareRawWords() {
    for (uint32_t id = 0; id < vocabulary_.size(); ++id) {
      auto token = vocabulary_.Token(id);
      if (!token) continue;
      std::string raw;
      bool maps = true;
      for (size_t at = 0; at < token->size() && maps;) {
        int byte = CharToByte(NextCodePoint(*token, at));
        maps = byte >= 0;
        if (maps) raw += static_cast<char>(byte);
      }
      if (maps) raw_words_.Add(raw, id);
    }
  }

  std::optional<uint32_t> WholeWord(std::string_view word) const {
    return options_.raw_bytes ? raw_words_.Find(word) : vocabulary_.Find(word);
  }

  void TokenizeUncached(std::string_view word, std::vector<Part>& parts) const {
    if (options_.ignore_merges) {
      if (auto id = WholeWord(word)) {
        parts.push_back({*id, 0, static_cast<uint32_t>(word.size())});
        return;
      }
    }
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    if (options_.raw_bytes) {
      SplitRaw(word, symbols);
    } else {
      SplitChars(word, symbols);
    }
    if (symbols.size() <= kScanLimit) {
      MergeByScan(symbols);
    } else {
      MergeByHeap(symbols);
    }
    // The bytes of an affix (byte_fallback) count as well and may lead out of the word: those are
    // its last byte's.
    const auto size = static_cast<uint32_t>(word.size());
    uint32_t at = 0;
    for (const Symbol& symbol : symbols) {
      parts.push_back({symbol.id, std::min(at, size - 1), std::min(at + symbol.length, size)});
      at += symbol.length;
    }
  }

  void AddUnknown(uint32_t length, bool& pending, std::vector<Symbol>& symbols) const {
    if (!unk_) return;  // as the reference: a character that nothing stands for vanishes
    if (pending && options_.fuse_unk) {
      symbols.back().length += length;
    } else {
      symbols.push_back({*unk_, length});
    }
    pending = true;
  }

  void SplitRaw(std::string_view word, std::vector<Symbol>& symbols) const {
    bool pending = false;
    for (char c : word) {
      int64_t id = raw_ids_[static_cast<uint8_t>(c)];
      if (id < 0) {
        AddUnknown(1, pending, symbols);
        continue;
      }
      pending = false;
      symbols.push_back({static_cast<uint32_t>(id), 1});
    }
  }

  void SplitChars(std::string_view word, std::vector<Symbol>& symbols) const {
    bool pending = false;  // whether the last symbol is an unknown that may still grow
    std::string decorated;
    for (size_t at = 0; at < word.size();) {
      size_t begin = at;
      at += Utf8Length(static_cast<unsigned char>(word[at]));
      std::string_view text = word.substr(begin, at - begin);
      auto length = static_cast<uint32_t>(text.size());
      bool with_prefix = begin > 0 && !options_.continuing_subword_prefix.empty();
      bool with_suffix = at == word.size() && !options_.end_of_word_suffix.empty();
      if (with_prefix || with_suffix) {
        decorated = with_prefix ? options_.continuing_subword_prefix : "";
        decorated += text;
        if (with_suffix) decorated += options_.end_of_word_suffix;
        text = decorated;
      }
      if (auto id = vocabulary_.Find(text)) {
        pending = false;
        symbols.push_back({*id, length});
      } else if (!options_.byte_fallback || !AddBytes(text, symbols)) {
        AddUnknown(length, pending, symbols);
      } else {
        pending = false;
      }
    }
  }

  bool AddBytes(std::string_view text, std::vector<Symbol>& symbols) const {
    for (char c : text) {
      if (fallback_[static_cast<uint8_t>(c)] < 0) return false;
    }
    for (char c : text) {
      symbols.push_back({static_cast<uint32_t>(fallback_[static_cast<uint8_t>(c)]), 1});
    }
    return true;
  }

  void MergeByScan(std::vector<Symbol>& symbols) const {
    size_t count = symbols.size();
    if (count < 2) return;
    Merge pairs[kScanLimit];
    for (size_t i = 0; i + 1 < count; ++i) {
      pairs[i] = merges_.Find(symbols[i].id, symbols[i + 1].id);
    }
    while (count > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < count; ++i) {
        if (pairs[i].rank < pairs[best].rank) best = i;
      }
      if (pairs[best].rank == kNoRank) break;
      symbols[best] = {pairs[best].id, symbols[best].length + symbols[best + 1].length};
      for (size_t i = best + 1; i + 1 < count; ++i) {
        symbols[i] = symbols[i + 1];
        pairs[i] = pairs[i + 1];
      }
      --count;
      if (best > 0) pairs[best - 1] = merges_.Find(symbols[best - 1].id, symbols[best].id);
      if (best + 1 < count) pairs[best] = merges_.Find(symbols[best].id, symbols[best + 1].id);
    }
    symbols.resize(count);
  }

  void MergeByHeap(std::vector<Symbol>& symbols) const;

  BpeOptions options_;
  MergeTable merges_;
  std::optional<uint32_t> unk_;
  std::array<int64_t, 256> fallback_{};
  std::array<int64_t, 256> raw_ids_{};
  Vocabulary raw_words_;
};

void Bpe::MergeByHeap(std::vector<Symbol>& symbols) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  struct Candidate {
    uint32_t rank, at, id;
    bool operator<(const Candidate& other) const {  // the queue's top is the largest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> previous(count), next(count);
  std::vector<Candidate> first;
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? kEnd : i - 1;
    next[i] = i + 1 == count ? kEnd : i + 1;
    if (next[i] == kEnd) break;
    Merge merge = merges_.Find(symbols[i].id, symbols[i + 1].id);
    if (merge.rank != kNoRank) first.push_back({merge.rank, i, merge.id});
  }
  std::priority_queue<Candidate> queue({}, std::move(first));
  auto push = [&](uint32_t at) {
    if (at == kEnd || next[at] == kEnd) return;
    Merge merge = merges_.Find(symbols[at].id, symbols[next[at]].id);
    if (merge.rank != kNoRank) queue.push({merge.rank, at, merge.id});
  };
  std::vector<bool> gone(count);
  while (!queue.empty()) {
    Candidate top = queue.top();
    queue.pop();
    if (gone[top.at] || next[top.at] == kEnd) continue;
    uint32_t right = next[top.at];
    Merge merge = merges_.Find(symbols[top.at].id, symbols[right].id);
    if (merge.rank == kNoRank || merge.id != top.id) continue;  // the pair has changed since
    symbols[top.at] = {top.id, symbols[top.at].length + symbols[right].length};
    gone[right] = true;
    next[top.at] = next[right];
    if (next[right] != kEnd) previous[next[right]] = top.at;
    push(previous[top.at]);
    push(top.at);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (!gone[i]) symbols[kept++] = symbols[i];
  }
  symbols.resize(kept);
}

}  // namespace

bool CanTakeRawBytes(const BpeOptions& options) {
  return !options.byte_fallback && options.continuing_subword_prefix.empty() &&
         options.end_of_word_suffix.empty();
}

Result<std::unique_ptr<Model>> MakeBpe(Vocabulary vocabulary, BpeOptions options) {
  auto model = std::make_unique<Bpe>(std::move(vocabulary), std::move(options));
  LEPTON_RETURN_IF_ERROR(model->Prepare());
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace lepton::tokenizer
