// The sections model and post_processor.
#include <cmath>

#include "runtime/formats/tokenizer/bpe.h"
#include "runtime/formats/tokenizer/read_parts.h"

namespace lepton::tokenizer {
namespace {

using nlohmann::json;

constexpr uint32_t kMaxId = 1u << 24;
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxTemplateItems = 64;
constexpr size_t kMaxSpecialIds = 64;

Vocabulary ReadVocabulary(const Fields& model) {
  const json& vocab = model.Need("vocab");
  if (!vocab.is_object()) model.Fail("vocab", "must be an object");
  Vocabulary vocabulary;
  // An id far beyond the number of tokens would only cost memory.
  size_t limit = std::min<size_t>(kMaxId, 4 * vocab.size() + 65536);
  for (const auto& [token, id] : vocab.items()) {
    std::string path = "model.vocab['" + token.substr(0, 64) + "']";
    uint32_t number = Fields::ToUint(id, path);
    if (number >= limit) throw FormatError{path + ": the id is far beyond the number of tokens"};
    if (token.size() > kMaxTokenBytes) throw FormatError{path + ": over 4096 bytes"};
    if (!vocabulary.Add(token, number)) {
      throw FormatError{path + ": id " + std::to_string(number) + " comes twice"};
    }
  }
  return vocabulary;
}

std::pair<std::string, std::string> ReadMerge(const json& merge, const std::string& path) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw FormatError{path + ": must be two tokens, as 'a b' or [a, b]"};
}

std::unique_ptr<Model> ReadBpe(const Fields& fields, bool byte_level) {
  fields.Only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
               "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (const json* dropout = fields.Get("dropout")) {
    if (!dropout->is_number() || dropout->get<double>() != 0) {
      fields.Fail("dropout", "is not supported: encoding is deterministic");
    }
  }
  BpeOptions options;
  options.unk_token = fields.Text("unk_token", "");
  options.continuing_subword_prefix = fields.Text("continuing_subword_prefix", "");
  options.end_of_word_suffix = fields.Text("end_of_word_suffix", "");
  if (options.continuing_subword_prefix.size() + options.end_of_word_suffix.size() > 256) {
    fields.Fail("continuing_subword_prefix and end_of_word_suffix: over 256 bytes");
  }
  options.fuse_unk = fields.Bool("fuse_unk", false);
  options.byte_fallback = fields.Bool("byte_fallback", false);
  options.ignore_merges = fields.Bool("ignore_merges", false);
  options.raw_bytes = byte_level && CanTakeRawBytes(options);
  Vocabulary vocabulary = ReadVocabulary(fields);
  const json& merges = fields.Array("merges");
  options.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    options.merges.push_back(ReadMerge(merges[i], "model.merges[" + std::to_string(i) + "]"));
  }
  auto model = MakeBpe(std::move(vocabulary), std::move(options));
  if (!model.ok()) fields.Fail(model.status().message());
  return std::move(model).value();
}

std::unique_ptr<Model> ReadWordPiece(const Fields& fields) {
  fields.Only(
      {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"});
  WordPieceOptions options;
  options.unk_token = fields.Text("unk_token", "[UNK]");
  options.prefix = fields.Text("continuing_subword_prefix", "##");
  options.max_chars_per_word = fields.Uint("max_input_chars_per_word", 100);
  auto model = MakeWordPiece(ReadVocabulary(fields), options);
  if (!model.ok()) fields.Fail(model.status().message());
  return std::move(model).value();
}

std::unique_ptr<Model> ReadUnigram(const Fields& fields) {
  fields.Only({"type", "unk_id", "vocab", "byte_fallback"});
  const json& vocab = fields.Array("vocab");
  if (vocab.size() > kMaxId) fields.Fail("vocab", "more than 16777216 tokens");
  Vocabulary vocabulary;
  UnigramOptions options;
  for (uint32_t id = 0; id < vocab.size(); ++id) {
    const json& item = vocab[id];
    std::string path = "model.vocab[" + std::to_string(id) + "]";
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      throw FormatError{path + ": must be [token, score]"};
    }
    const auto& token = item[0].get_ref<const std::string&>();
    if (token.size() > kMaxTokenBytes) throw FormatError{path + ": over 4096 bytes"};
    vocabulary.Add(token, id);
    options.scores.push_back(item[1].get<double>());
  }
  if (fields.Get("unk_id")) options.unk_id = fields.Uint("unk_id");
  options.byte_fallback = fields.Bool("byte_fallback", false);
  auto model = MakeUnigram(std::move(vocabulary), std::move(options));
  if (!model.ok()) fields.Fail(model.status().message());
  return std::move(model).value();
}

// ["[SEP]", 102]
TemplateItem ReadTokenPair(const Fields& fields, std::string_view key, uint32_t type_id) {
  const json& pair = fields.Array(key);
  if (pair.size() != 2 || !pair[0].is_string()) fields.Fail(key, "must be [token, id]");
  return {-1, type_id, {Fields::ToUint(pair[1], fields.At(key))}, {pair[0].get<std::string>()}};
}

void ReadBertOrRoberta(const Fields& fields, bool roberta, PostProcessor& processor) {
  uint32_t second_type = roberta ? 0 : 1;
  TemplateItem first{0, 0, {}, {}}, second{1, second_type, {}, {}};
  TemplateItem cls = ReadTokenPair(fields, "cls", 0), sep = ReadTokenPair(fields, "sep", 0);
  TemplateItem last = ReadTokenPair(fields, "sep", second_type);
  processor.single = {cls, first, sep};
  processor.pair = roberta ? std::vector{cls, first, sep, sep, second, last}
                           : std::vector{cls, first, sep, second, last};
  processor.has_template = true;
}

std::map<std::string, TemplateItem> ReadSpecialTokens(const Fields& fields) {
  std::map<std::string, TemplateItem> specials;
  const json& tokens = fields.Need("special_tokens");
  if (!tokens.is_object()) fields.Fail("special_tokens", "must be an object");
  for (const auto& [name, value] : tokens.items()) {
    Fields token(value, fields.At("special_tokens") + "['" + name.substr(0, 64) + "']");
    token.Only({"id", "ids", "tokens"});
    TemplateItem item;
    for (const json& id : token.Array("ids")) {
      item.ids.push_back(Fields::ToUint(id, token.At("ids")));
    }
    for (const json& text : token.Array("tokens")) {
      if (!text.is_string()) token.Fail("tokens", "must be strings");
      item.tokens.push_back(text.get<std::string>());
    }
    if (item.ids.size() != item.tokens.size() || item.ids.size() > kMaxSpecialIds) {
      token.Fail("ids and tokens must be as many, at most 64");
    }
    specials[name] = std::move(item);
  }
  return specials;
}

std::vector<TemplateItem> ReadTemplate(const Fields& fields, std::string_view key,
                                       const std::map<std::string, TemplateItem>& specials) {
  std::vector<TemplateItem> items;
  const json& list = fields.Array(key);
  if (list.size() > kMaxTemplateItems) fields.Fail(key, "more than 64 pieces");
  for (size_t i = 0; i < list.size(); ++i) {
    Fields item(list[i], fields.At(key) + "[" + std::to_string(i) + "]");
    item.Only({"Sequence", "SpecialToken"});
    bool sequence = item.Get("Sequence") != nullptr;
    std::string_view kind = sequence ? "Sequence" : "SpecialToken";
    Fields inner(item.Need(kind), item.At(kind));
    inner.Only({"id", "type_id"});
    const std::string& id = inner.Text("id");
    uint32_t type_id = inner.Uint("type_id", 0);
    if (sequence) {
      if (id != "A" && (id != "B" || key == "single")) inner.Fail("id", "must be A (or B in pair)");
      items.push_back({id == "A" ? 0 : 1, type_id, {}, {}});
      continue;
    }
    auto found = specials.find(id);
    if (found == specials.end()) inner.Fail("id", "is not in special_tokens");
    items.push_back(found->second);
    items.back().type_id = type_id;
  }
  return items;
}

}  // namespace

std::unique_ptr<Model> ReadModel(const json& value, bool byte_level) {
  Fields fields(value, "model");
  std::string type = fields.Text("type", "");
  if (type.empty()) {  // files of before 2021 leave it out
    type = fields.Get("merges")                                     ? "BPE"
           : fields.Get("vocab") && fields.Need("vocab").is_array() ? "Unigram"
                                                                    : "WordPiece";
  }
  if (type == "BPE") return ReadBpe(fields, byte_level);
  if (type == "WordPiece") return ReadWordPiece(fields);
  if (type == "Unigram") return ReadUnigram(fields);
  fields.Fail("type", "'" + type.substr(0, 64) + "' is not a supported model");
}

void ReadPostProcessor(const json& value, const std::string& path, PostProcessor& processor) {
  std::string type = ReadType(value, path);
  Fields fields(value, path);
  if (type == "Sequence") {
    fields.Only({"type", "processors"});
    const json& steps = fields.Array("processors");
    for (size_t i = 0; i < steps.size(); ++i) {
      ReadPostProcessor(steps[i], path + ".processors[" + std::to_string(i) + "]", processor);
    }
    return;
  }
  if (processor.has_template) fields.Fail("nothing may follow a template");
  if (type == "ByteLevel" || type == "RobertaProcessing") {
    if (processor.trim) fields.Fail("offsets are trimmed twice, which is not supported");
    if (fields.Bool("trim_offsets", true)) {
      processor.trim = TrimOffsets{fields.Bool("add_prefix_space", true)};
    }
  }
  if (type == "ByteLevel") {
    fields.Only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else if (type == "RobertaProcessing") {
    fields.Only({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
    ReadBertOrRoberta(fields, true, processor);
  } else if (type == "BertProcessing") {
    fields.Only({"type", "sep", "cls"});
    ReadBertOrRoberta(fields, false, processor);
  } else if (type == "TemplateProcessing") {
    fields.Only({"type", "single", "pair", "special_tokens"});
    auto specials = ReadSpecialTokens(fields);
    processor.single = ReadTemplate(fields, "single", specials);
    processor.pair = ReadTemplate(fields, "pair", specials);
    processor.has_template = processor.always_types = true;
  } else {
    fields.Fail("type", "'" + type + "' is not a supported post-processor");
  }
}

}  // namespace lepton::tokenizer
