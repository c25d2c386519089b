// WordPiece: the longest token that the rest of the word starts with, again and again; a word with
// a rest that no token starts is unknown as a whole.
#include <algorithm>

#include "runtime/formats/tokenizer/model.h"

namespace lepton::tokenizer {
namespace {

class WordPiece : public Model {
 public:
  WordPiece(Vocabulary vocabulary, const WordPieceOptions& options, uint32_t unk)
      : Model(std::move(vocabulary)), max_chars_(options.max_chars_per_word), unk_(unk) {
    std::vector<PrefixTrie::Key> starts, continuations;
    for (uint32_t id = 0; id < vocabulary_.size(); ++id) {
      auto token = vocabulary_.Token(id);
      if (!token || token->empty()) continue;
      starts.push_back({*token, id});
      if (token->size() > options.prefix.size() && token->starts_with(options.prefix)) {
        continuations.push_back({token->substr(options.prefix.size()), id});
      }
    }
    starts_ = PrefixTrie(std::move(starts));
    continuations_ = PrefixTrie(std::move(continuations));
  }

  Status Tokenize(std::string_view word, Workspace&, std::vector<Part>& parts) const override {
    auto size = static_cast<uint32_t>(word.size());
    size_t chars =
        std::count_if(word.begin(), word.end(), [](char c) { return (c & 0xC0) != 0x80; });
    size_t first = parts.size();
    for (uint32_t at = 0; at < size;) {
      uint32_t length = 0, id = 0;
      if (chars <= max_chars_) {
        (at == 0 ? starts_ : continuations_)
            .ForEachPrefix(word.substr(at), [&](size_t found, uint32_t value) {
              length = static_cast<uint32_t>(found);
              id = value;
            });
      }
      if (length == 0) {
        parts.resize(first);
        parts.push_back({unk_, 0, size});
        return {};
      }
      parts.push_back({id, at, at + length});
      at += length;
    }
    return {};
  }

 private:
  uint32_t max_chars_;
  uint32_t unk_;
  PrefixTrie starts_;
  PrefixTrie continuations_;
};

}  // namespace

Result<std::unique_ptr<Model>> MakeWordPiece(Vocabulary vocabulary,
                                             const WordPieceOptions& options) {
  auto unk = vocabulary.Find(options.unk_token);
  if (!unk) return InvalidArgument("unk_token: '" + options.unk_token + "' is not in vocab");
  return std::unique_ptr<Model>(std::make_unique<WordPiece>(std::move(vocabulary), options, *unk));
}

}  // namespace lepton::tokenizer
