// A tokenizer.json of a few words, in BERT's manner: [CLS] text [SEP], pairs with type ids.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace lepton::testing {

// Ids: 0 [PAD], 1 [UNK], 2 [CLS], 3 [SEP], then the words.
inline std::string TinyTokenizerJson(const std::vector<std::string>& words = {
                                         "the", "cat", "dog", "sat", "ran", "##s", "on", "mat",
                                         "good", "bad", "film", "a"}) {
  using nlohmann::json;
  json vocab = json::object(), added = json::array();
  int id = 0;
  for (const char* special : {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}) {
    added.push_back({{"id", id},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[special] = id++;
  }
  for (const std::string& word : words) vocab[word] = id++;
  const json document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"clean_text", true},
        {"handle_chinese_chars", true},
        {"strip_accents", nullptr},
        {"lowercase", true}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab", vocab}}}};
  return document.dump();
}

}  // namespace lepton::testing
