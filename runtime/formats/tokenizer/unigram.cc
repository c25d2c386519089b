// Unigram language model: the cut with the largest sum of scores (Viterbi), O(length of the text x
// length of the longest token).
#include <algorithm>
#include <cmath>

#include "runtime/formats/tokenizer/model.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the worst score, as SentencePiece

class Unigram : public Model {
 public:
  Unigram(Vocabulary vocabulary, UnigramOptions options)
      : Model(std::move(vocabulary)), options_(std::move(options)) {
    std::vector<PrefixTrie::Key> keys;
    for (uint32_t id = 0; id < vocabulary_.size(); ++id) {
      auto token = vocabulary_.Token(id);
      if (token && !token->empty()) keys.push_back({*token, *vocabulary_.Find(*token)});
    }
    trie_ = PrefixTrie(std::move(keys));
    double worst = options_.scores.empty()
                       ? 0
                       : *std::min_element(options_.scores.begin(), options_.scores.end());
    unknown_score_ = worst - kUnknownPenalty;
    fallback_ = ByteFallbackIds(vocabulary_);
  }

  bool shows_text(uint32_t id) const override { return options_.unk_id == id; }

  Status Tokenize(std::string_view piece, Workspace&, std::vector<Part>& parts) const override {
    std::vector<Node> best = Search(piece);
    std::vector<Part> reversed;
    for (auto end = static_cast<uint32_t>(piece.size()); end > 0;) {
      const Node& node = best[end];
      if (node.unknown && !reversed.empty() && reversed.back().id == kUnknown &&
          reversed.back().begin == end) {
        reversed.back().begin = node.begin;  // unknown neighbours are one token
      } else {
        reversed.push_back({node.unknown ? kUnknown : node.id, node.begin, end});
      }
      end = node.begin;
    }
    for (auto part = reversed.rbegin(); part != reversed.rend(); ++part) {
      if (part->id != kUnknown) {
        parts.push_back(*part);
        continue;
      }
      LEPTON_RETURN_IF_ERROR(AddUnknown(piece, *part, parts));
    }
    return {};
  }

 private:
  static constexpr uint32_t kUnknown = UINT32_MAX;
  struct Node {
    double score = 0;
    uint32_t id = 0;
    uint32_t begin = UINT32_MAX;  // of the best token that ends here; UINT32_MAX: none does
    bool unknown = false;
  };

  std::vector<Node> Search(std::string_view piece) const {
    std::vector<Node> best(piece.size() + 1);
    for (size_t at = 0; at < piece.size();) {
      size_t char_length = Utf8Length(static_cast<unsigned char>(piece[at]));
      double here = best[at].score;
      bool single = false;
      auto offer = [&](size_t length, double score, uint32_t id, bool unknown) {
        Node& node = best[at + length];
        if (node.begin != UINT32_MAX && score <= node.score) return;
        node = {score, id, static_cast<uint32_t>(at), unknown};
      };
      trie_.ForEachPrefix(piece.substr(at), [&](size_t length, uint32_t id) {
        offer(length, here + options_.scores[id], id, options_.unk_id == id);
        single |= length == char_length;
      });
      if (!single) offer(char_length, here + unknown_score_, 0, true);
      at += char_length;
    }
    return best;
  }

  Status AddUnknown(std::string_view piece, const Part& part, std::vector<Part>& parts) const {
    std::string_view text = piece.substr(part.begin, part.end - part.begin);
    if (auto id = vocabulary_.Find(text)) {
      parts.push_back({*id, part.begin, part.end});
      return {};
    }
    bool all = options_.byte_fallback;
    for (char c : text) all = all && fallback_[static_cast<uint8_t>(c)] >= 0;
    if (all) {
      for (char c : text) {
        auto id = static_cast<uint32_t>(fallback_[static_cast<uint8_t>(c)]);
        parts.push_back({id, part.begin, part.end});
      }
      return {};
    }
    if (!options_.unk_id) {
      return InvalidArgument("text: '" + std::string(text.substr(0, 64)) +
                             "' is not in the vocabulary, which has no unknown token");
    }
    parts.push_back({*options_.unk_id, part.begin, part.end});
    return {};
  }

  UnigramOptions options_;
  PrefixTrie trie_;
  double unknown_score_ = 0;
  std::array<int64_t, 256> fallback_{};
};

}  // namespace

Result<std::unique_ptr<Model>> MakeUnigram(Vocabulary vocabulary, UnigramOptions options) {
  if (options.scores.size() != vocabulary.size()) {
    return Internal("unigram: scores and tokens differ in number");
  }
  for (double score : options.scores) {
    if (!std::isfinite(score)) return InvalidArgument("vocab: a score is not finite");
  }
  if (options.unk_id && *options.unk_id >= vocabulary.size()) {
    return InvalidArgument("unk_id: " + std::to_string(*options.unk_id) + " is not in vocab");
  }
  return std::unique_ptr<Model>(
      std::make_unique<Unigram>(std::move(vocabulary), std::move(options)));
}

std::array<int64_t, 256> ByteFallbackIds(const Vocabulary& vocabulary) {
  std::array<int64_t, 256> ids;
  static constexpr char kDigits[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    std::string token = {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
    auto id = vocabulary.Find(token);
    ids[byte] = id ? int64_t{*id} : -1;
  }
  return ids;
}

}  // namespace lepton::tokenizer
