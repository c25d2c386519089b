// The sections normalizer, pre_tokenizer and decoder.
#include "runtime/formats/tokenizer/read_parts.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

using nlohmann::json;

constexpr size_t kMaxSteps = 64;
constexpr char32_t kMetaspace = 0x2581;

std::string Item(const std::string& path, std::string_view key, size_t i) {
  return path + "." + std::string(key) + "[" + std::to_string(i) + "]";
}

const json& Steps(const Fields& fields, std::string_view key) {
  fields.Only({"type", key});
  const json& steps = fields.Array(key);
  if (steps.size() > kMaxSteps) fields.Fail(key, "more than 64 steps");
  return steps;
}

NormalizerPtr ReadBert(const Fields& fields) {
  fields.Only({"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"});
  BertOptions options;
  options.clean_text = fields.Bool("clean_text", true);
  options.handle_chinese_chars = fields.Bool("handle_chinese_chars", true);
  options.lowercase = fields.Bool("lowercase", true);
  options.strip_accents = fields.Bool("strip_accents", options.lowercase);
  return MakeBertNormalizer(options);
}

Behavior ReadBehavior(const Fields& fields, std::string_view fallback) {
  std::string name = fields.Text("behavior", fallback);
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  fields.Fail("behavior", "'" + name.substr(0, 64) + "' is not supported");
}

PrependScheme ReadScheme(const Fields& fields) {
  std::string name = fields.Text("prepend_scheme", "always");
  PrependScheme scheme = PrependScheme::kAlways;
  if (name == "first") {
    scheme = PrependScheme::kFirst;
  } else if (name == "never") {
    scheme = PrependScheme::kNever;
  } else if (name != "always") {
    fields.Fail("prepend_scheme", "'" + name.substr(0, 64) + "' is not supported");
  }
  if (fields.Bool("add_prefix_space", true)) return scheme;
  if (fields.Get("prepend_scheme") && scheme != PrependScheme::kNever) {
    fields.Fail("add_prefix_space", "contradicts prepend_scheme");
  }
  return PrependScheme::kNever;
}

PreTokenizerPtr ReadByteLevel(const Fields& fields, bool map_bytes, Definition& definition) {
  fields.Only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  ByteLevelOptions options;
  options.add_prefix_space = fields.Bool("add_prefix_space", true);
  options.use_regex = fields.Bool("use_regex", true);
  options.map_bytes = map_bytes;
  definition.scans_gpt2 = options.use_regex && !map_bytes && definition.pre_tokenizers.empty();
  definition.gpt2_prefix_space = options.add_prefix_space;
  return MakeByteLevel(options);
}

PreTokenizerPtr ReadOne(const json& value, const std::string& path, bool map_bytes,
                        Definition& definition) {
  std::string type = ReadType(value, path);
  Fields fields(value, path);
  if (type == "ByteLevel") return ReadByteLevel(fields, map_bytes, definition);
  if (type == "Metaspace") {
    fields.Only({"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
    return MakeMetaspace(ReadChar(fields, "replacement", kMetaspace), ReadScheme(fields),
                         fields.Bool("split", true));
  }
  if (type == "Split") {
    fields.Only({"type", "pattern", "behavior", "invert"});
    Pattern pattern = ReadPattern(fields);
    return MakeSplit(std::move(pattern.plain), std::move(pattern.regex),
                     ReadBehavior(fields, "Isolated"), fields.Bool("invert", false));
  }
  if (type == "CharDelimiterSplit") {
    fields.Only({"type", "delimiter"});
    fields.Need("delimiter");
    return MakeSplit(ToUtf8(ReadChar(fields, "delimiter", ' ')), nullptr, Behavior::kRemoved,
                     false);
  }
  if (type == "Digits") {
    fields.Only({"type", "individual_digits"});
    return MakeDigits(fields.Bool("individual_digits", false));
  }
  if (type == "Punctuation") {
    fields.Only({"type", "behavior"});
    return MakePunctuation(ReadBehavior(fields, "Isolated"));
  }
  fields.Only({"type"});
  if (type == "Whitespace") return MakeWhitespace();
  if (type == "WhitespaceSplit") return MakeWhitespaceSplit();
  if (type == "BertPreTokenizer") return MakeBertPreTokenizer();
  fields.Fail("type", "'" + type + "' is not a supported pre-tokenizer");
}

}  // namespace

NormalizerPtr ReadNormalizer(const json& value, const std::string& path) {
  std::string type = ReadType(value, path);
  Fields fields(value, path);
  if (type == "Sequence") {
    const json& steps = Steps(fields, "normalizers");
    std::vector<NormalizerPtr> all;
    for (size_t i = 0; i < steps.size(); ++i) {
      all.push_back(ReadNormalizer(steps[i], Item(path, "normalizers", i)));
    }
    return MakeNormalizerSequence(std::move(all));
  }
  if (type == "BertNormalizer") return ReadBert(fields);
  if (type == "Strip") {
    fields.Only({"type", "strip_left", "strip_right"});
    return MakeStrip(fields.Bool("strip_left", true), fields.Bool("strip_right", true));
  }
  if (type == "Prepend") {
    fields.Only({"type", "prepend"});
    return MakePrepend(fields.Text("prepend"));
  }
  if (type == "Replace") {
    fields.Only({"type", "pattern", "content"});
    Pattern pattern = ReadPattern(fields);
    return MakeReplace(std::move(pattern.plain), std::move(pattern.regex), fields.Text("content"));
  }
  if (type == "Precompiled") {
    fields.Only({"type", "precompiled_charsmap"});
    std::string map = fields.Text("precompiled_charsmap", "");
    if (map.empty()) return MakeNormalizerSequence({});
    return fields.Unwrap("precompiled_charsmap", MakePrecompiled(map));
  }
  fields.Only({"type"});
  if (type == "NFC") return MakeUnicodeNormalizer(UnicodeForm::kNfc);
  if (type == "NFD") return MakeUnicodeNormalizer(UnicodeForm::kNfd);
  if (type == "NFKC") return MakeUnicodeNormalizer(UnicodeForm::kNfkc);
  if (type == "NFKD") return MakeUnicodeNormalizer(UnicodeForm::kNfkd);
  if (type == "Lowercase") return MakeLowercase();
  if (type == "StripAccents") return MakeStripAccents();
  if (type == "ByteLevel") return MakeByteLevelNormalizer();
  fields.Fail("type", "'" + type + "' is not a supported normalizer");
}

bool EndsInByteLevel(const json& value) {
  if (!value.is_object() || !value.contains("type")) return false;
  if (value["type"] == "ByteLevel") return true;
  if (value["type"] != "Sequence" || !value.contains("pretokenizers")) return false;
  const json& steps = value["pretokenizers"];
  return steps.is_array() && !steps.empty() && EndsInByteLevel(steps.back());
}

void ReadPreTokenizer(const json& value, const std::string& path, bool raw_bytes,
                      Definition& definition) {
  if (ReadType(value, path) != "Sequence") {
    if (definition.pre_tokenizers.size() >= kMaxSteps) {
      throw FormatError{path + ": more than 64 steps"};
    }
    definition.scans_gpt2 = false;
    definition.pre_tokenizers.push_back(ReadOne(value, path, !raw_bytes, definition));
    return;
  }
  Fields fields(value, path);
  const json& steps = Steps(fields, "pretokenizers");
  for (size_t i = 0; i < steps.size(); ++i) {
    ReadPreTokenizer(steps[i], Item(path, "pretokenizers", i), raw_bytes && i + 1 == steps.size(),
                     definition);
  }
}

DecoderPtr ReadDecoder(const json& value, const std::string& path) {
  std::string type = ReadType(value, path);
  Fields fields(value, path);
  if (type == "Sequence") {
    const json& steps = Steps(fields, "decoders");
    std::vector<DecoderPtr> all;
    for (size_t i = 0; i < steps.size(); ++i) {
      all.push_back(ReadDecoder(steps[i], Item(path, "decoders", i)));
    }
    return MakeDecoderSequence(std::move(all));
  }
  if (type == "ByteLevel") {
    fields.Only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return MakeByteLevelDecoder();
  }
  if (type == "WordPiece") {
    fields.Only({"type", "prefix", "cleanup"});
    return MakeWordPieceDecoder(fields.Text("prefix", "##"), fields.Bool("cleanup", true));
  }
  if (type == "Metaspace") {
    fields.Only({"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
    return MakeMetaspaceDecoder(ReadChar(fields, "replacement", kMetaspace),
                                ReadScheme(fields) != PrependScheme::kNever);
  }
  if (type == "BPEDecoder") {
    fields.Only({"type", "suffix"});
    std::string suffix = fields.Text("suffix", "</w>");
    if (suffix.empty()) fields.Fail("suffix", "must not be empty");
    return MakeBpeDecoder(std::move(suffix));
  }
  if (type == "Replace") {
    fields.Only({"type", "pattern", "content"});
    Pattern pattern = ReadPattern(fields);
    return MakeReplaceDecoder(std::move(pattern.plain), std::move(pattern.regex),
                              fields.Text("content"));
  }
  if (type == "Strip") {
    fields.Only({"type", "content", "start", "stop"});
    return MakeStripDecoder(ReadChar(fields, "content", ' '), fields.Uint("start", 0),
                            fields.Uint("stop", 0));
  }
  fields.Only({"type"});
  if (type == "Fuse") return MakeFuseDecoder();
  if (type == "ByteFallback") return MakeByteFallbackDecoder();
  fields.Fail("type", "'" + type + "' is not a supported decoder");
}

}  // namespace lepton::tokenizer
