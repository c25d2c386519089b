#include "runtime/formats/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <functional>
#include <limits>
#include <thread>

#include "runtime/formats/tokenizer/gpt2_scanner.h"
#include "runtime/formats/tokenizer/regex.h"

namespace lepton::tokenizer {
namespace {

std::unique_ptr<Tokenizer> Load(const std::string& json) {
  auto tokenizer = Tokenizer::FromJson(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

std::string Show(const Encoding& encoding) {
  std::string out;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    out += encoding.tokens[i] + "@" + std::to_string(encoding.offsets[i].begin) + "-" +
           std::to_string(encoding.offsets[i].end) + " ";
  }
  return out;
}

std::string ShowText(const Tokenizer& tokenizer, std::string_view text, bool special = true) {
  auto encoding = tokenizer.Encode(text, special);
  return encoding.ok() ? Show(*encoding) : encoding.status().ToString();
}

const char kBert[] = R"({"version":"1.0","truncation":null,"padding":null,
 "added_tokens":[{"id":0,"content":"[UNK]","special":true},{"id":1,"content":"[CLS]","special":true},
  {"id":2,"content":"[SEP]","special":true}],
 "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,
  "strip_accents":null,"lowercase":true},
 "pre_tokenizer":{"type":"BertPreTokenizer"},
 "post_processor":{"type":"TemplateProcessing",
  "single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},
   {"SpecialToken":{"id":"[SEP]","type_id":0}}],
  "pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},
   {"SpecialToken":{"id":"[SEP]","type_id":0}},{"Sequence":{"id":"B","type_id":1}},
   {"SpecialToken":{"id":"[SEP]","type_id":1}}],
  "special_tokens":{"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},
   "[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},
 "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
 "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
  "max_input_chars_per_word":100,
  "vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"un":3,"##aff":4,"##able":5,"cafe":6,",":7,"中":8,"!":9}}})";

TEST(WordPieceTest, BertCutsWordsAndKeepsOffsetsInCodePoints) {
  auto tokenizer = Load(kBert);
  EXPECT_EQ(ShowText(*tokenizer, "Unaffable, CAFÉ中!xyz"),
            "[CLS]@0-0 un@0-2 ##aff@2-5 ##able@5-9 ,@9-10 cafe@11-15 中@15-16 !@16-17 "
            "[UNK]@17-20 [SEP]@0-0 ");
  auto pair = tokenizer->EncodePair("un", "cafe");
  ASSERT_TRUE(pair.ok());
  EXPECT_EQ(pair->ids, (std::vector<uint32_t>{1, 3, 2, 6, 2}));
  EXPECT_EQ(pair->type_ids, (std::vector<uint32_t>{0, 0, 0, 1, 1}));
  EXPECT_EQ(pair->special_mask, (std::vector<uint8_t>{1, 0, 1, 0, 1}));
  EXPECT_EQ(tokenizer->Decode({1, 3, 4, 5, 7, 6, 2}).value(), "unaffable, cafe");
  EXPECT_EQ(tokenizer->vocab_size(), 10u);
  EXPECT_EQ(tokenizer->TokenToId("cafe"), 6u);
  EXPECT_EQ(tokenizer->IdToToken(6), "cafe");
}

TEST(PostProcessorTest, SequencesTellTheTextsApartWhateverTheirTypes) {
  std::string json = kBert;
  for (size_t at = 0; (at = json.find("\"type_id\":1", at)) != json.npos;) json[at + 10] = '0';
  const auto pair = Load(json)->EncodePair("un", "cafe,").value();
  EXPECT_EQ(pair.type_ids, (std::vector<uint32_t>{0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(pair.sequences, (std::vector<int8_t>{-1, 0, -1, 1, 1, -1}));
  EXPECT_EQ(Load(json)->EncodePair("un", "cafe", false)->sequences, (std::vector<int8_t>{0, 1}));
}

TEST(WordPieceTest, SpecialTokensInTheTextAreFound) {
  auto tokenizer = Load(kBert);
  EXPECT_EQ(ShowText(*tokenizer, "un[SEP]un", false), "un@0-2 [SEP]@2-7 un@7-9 ");
}

std::string ByteBpe(const std::string& extra = "", const std::string& pre = "") {
  return R"({"added_tokens":[{"id":20,"content":"<e>","special":true,"lstrip":true,"rstrip":true},
   {"id":21,"content":"ab","single_word":true,"normalized":false}],
   "pre_tokenizer":)" +
         (pre.empty() ? std::string(R"({"type":"ByteLevel","add_prefix_space":false})") : pre) +
         R"(,"decoder":{"type":"ByteLevel"},
   "model":{"type":"BPE","vocab":{"h":0,"e":1,"l":2,"o":3,"Ġ":4,"w":5,"r":6,"d":7,"Ã":8,"©":9,
    "he":10,"ll":11,"hell":12,"hello":13,"Ġw":14,"Ġwo":15,"a":16,"b":17,"bl":18},
    "merges":["h e","l l","he ll","hell o","Ġ w",["Ġw","o"]])" +
         extra + "}}";
}

TEST(BpeTest, ByteLevelMergesByRank) {
  auto tokenizer = Load(ByteBpe());
  EXPECT_EQ(ShowText(*tokenizer, "hello world"), "hello@0-5 Ġwo@5-8 r@8-9 l@9-10 d@10-11 ");
  EXPECT_EQ(tokenizer->Decode(tokenizer->EncodeIds("hello world").value()).value(), "hello world");
}

TEST(BpeTest, HalvesOfACharacterHaveItsOffsets) {
  auto tokenizer = Load(ByteBpe());
  EXPECT_EQ(ShowText(*tokenizer, "hé l"), "h@0-1 Ã@1-2 ©@1-2 Ġ@2-3 l@3-4 ");
  EXPECT_EQ(tokenizer->Decode({8}).value(), "\xEF\xBF\xBD");
}

TEST(BpeTest, RawBytesAndMappedBytesAgree) {
  auto raw = Load(ByteBpe());
  // A step behind ByteLevel sees the mapped characters, so the model gets those.
  auto mapped = Load(ByteBpe("", R"({"type":"Sequence","pretokenizers":[
      {"type":"ByteLevel","add_prefix_space":false},{"type":"Digits"}]})"));
  for (const char* text : {"hello world", "hé  l  é o", " w wo"}) {
    EXPECT_EQ(ShowText(*raw, text), ShowText(*mapped, text));
  }
}

TEST(BpeTest, AddedTokensStripAndStandAlone) {
  auto tokenizer = Load(ByteBpe());
  EXPECT_EQ(ShowText(*tokenizer, "he  <e> he"), "he@0-2 <e>@2-8 he@8-10 ");
  EXPECT_EQ(ShowText(*tokenizer, "abl ab"), "a@0-1 b@1-2 l@2-3 Ġ@3-4 ab@4-6 ");
}

TEST(BpeTest, IgnoreMergesTakesWholeWords) {
  EXPECT_EQ(ShowText(*Load(ByteBpe()), "bl"), "b@0-1 l@1-2 ");
  EXPECT_EQ(ShowText(*Load(ByteBpe(R"(,"ignore_merges":true)")), "bl"), "bl@0-2 ");
}

// Llama-2's layout: spaces marked by a normaliser, no pre-tokeniser, bytes for the unknown.
const char kLlama[] = R"({"added_tokens":[],
 "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
  {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,
 "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
  {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
 "model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,
  "vocab":{"<unk>":0,"▁":1,"h":2,"i":3,"▁h":4,"▁hi":5,"<0xC3>":6,"<0xA9>":7},
  "merges":["▁ h","▁h i"]}})";

TEST(BpeTest, ByteFallbackAndItsDecoder) {
  auto tokenizer = Load(kLlama);
  EXPECT_EQ(ShowText(*tokenizer, "hi é"), "▁hi@0-2 ▁@2-3 <0xC3>@3-4 <0xA9>@3-4 ");
  EXPECT_EQ(tokenizer->Decode({5, 1, 6, 7}).value(), "hi é");
  EXPECT_EQ(tokenizer->EncodeIds("xyz").value(), (std::vector<uint32_t>{1, 0}));
}

// An affix has bytes too, which are not in the text: they are its last character's.
TEST(BpeTest, ByteFallbackOfAnAffixStaysInTheText) {
  const auto with = [](const std::string& affix) {
    return Load(R"({"model":{"type":"BPE","byte_fallback":true,)" + affix +
                R"(,"vocab":{"<unk>":0,"<0xC3>":1,"<0xA9>":2,"<0x3C>":3,"<0x23>":4,"a":5,"a<":6},
                "merges":[]}})");
  };
  const auto suffix = with(R"("end_of_word_suffix":"<")");
  const auto prefix = with(R"("continuing_subword_prefix":"##")");
  const std::string ends = "<0xC3>@0-1 <0xA9>@0-1 <0x3C>@0-1 ";
  const std::string goes_on = "a@0-1 <0x23>@1-2 <0x23>@1-2 <0xC3>@1-2 <0xA9>@1-2 ";
  for (int again = 0; again < 2; ++again) {  // the second time from the cache of words
    EXPECT_EQ(ShowText(*suffix, "é"), ends);
    EXPECT_EQ(ShowText(*prefix, "aé"), goes_on);
    EXPECT_EQ(ShowText(*suffix, "a"), "a<@0-1 ");
  }
}

TEST(BpeTest, AMegabyteWordTakesNoQuadraticTime) {
  auto tokenizer = Load(kLlama);
  std::string word;
  while (word.size() < (1 << 20)) word += " hi";
  auto begin = std::chrono::steady_clock::now();
  auto ids = tokenizer->EncodeIds(word);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), word.size() / 3 + 1);  // the prefix stands alone
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(UnigramTest, ViterbiFindsTheBestOfAllCuts) {
  const std::vector<std::pair<std::string, double>> vocab = {
      {"<unk>", 0}, {"a", -2.1},   {"b", -2.3},  {"c", -3.7},  {"ab", -3.9},
      {"bc", -4.4}, {"abc", -6.3}, {"ca", -4.9}, {"cab", -6.6}};
  std::string json = R"({"added_tokens":[],"model":{"type":"Unigram","unk_id":0,"vocab":[)";
  for (const auto& [token, score] : vocab) {
    json += (token == "<unk>" ? "" : ",") + std::string("[\"") + token + "\"," +
            std::to_string(score) + "]";
  }
  auto tokenizer = Load(json + "]}}");
  std::function<double(std::string_view)> best = [&](std::string_view text) {
    if (text.empty()) return 0.0;
    double top = -std::numeric_limits<double>::infinity();
    for (const auto& [token, score] : vocab) {
      if (text.starts_with(token)) {
        top = std::max(top, score + best(text.substr(token.size())));
      }
    }
    return top;
  };
  for (int number = 1; number < 3 * 3 * 3 * 3 * 3 * 3; ++number) {
    std::string text;
    for (int n = number; n > 0; n /= 3) text += static_cast<char>('a' + n % 3);
    double score = 0;
    std::string joined;
    const auto ids = tokenizer->EncodeIds(text).value();
    for (uint32_t id : ids) {
      score += vocab[id].second;
      joined += vocab[id].first;
    }
    EXPECT_EQ(joined, text);
    EXPECT_NEAR(score, best(text), 1e-9) << text;
  }
  EXPECT_EQ(ShowText(*tokenizer, "axyb"), "a@0-1 xy@1-3 b@3-4 ");
}

TEST(UnigramTest, MetaspaceMarksWords) {
  auto tokenizer = Load(R"({"pre_tokenizer":{"type":"Metaspace","replacement":"▁",
    "prepend_scheme":"always","split":true},"decoder":{"type":"Metaspace","replacement":"▁",
    "prepend_scheme":"always"},"model":{"type":"Unigram","unk_id":0,
    "vocab":[["<unk>",0],["▁a",-1],["▁b",-1],["c",-2]]}})");
  EXPECT_EQ(ShowText(*tokenizer, "a bc"), "▁a@0-1 ▁b@1-3 c@3-4 ");
  EXPECT_EQ(tokenizer->Decode({1, 2, 3}).value(), "a bc");
}

TEST(ScannerTest, AgreesWithTheRegexItReplaces) {
  auto regex = Regex::Compile(kGpt2Pattern).value();
  const std::vector<std::string> parts = {"a",  "Zé", "'", "s",  "ll", "re", " ",        "  ",
                                          "\n", "7",  "²", "!?", "中", "　", "\xC2\x85", "🙂"};
  uint32_t state = 1;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 9; ++i) text += parts[(state = state * 1664525u + 1013904223u) >> 28];
    std::vector<Span> expected;
    ASSERT_TRUE(regex->FindAll(text, expected).ok());
    size_t i = 0;
    ScanGpt2(text, [&](size_t begin, size_t end) {
      ASSERT_LT(i, expected.size()) << text;
      EXPECT_EQ(begin, expected[i].begin) << text;
      EXPECT_EQ(end, expected[i].end) << text;
      ++i;
    });
    EXPECT_EQ(i, expected.size()) << text;
  }
}

// The whole pipeline in front of a model whose tokens are single characters.
// Matches as "begin-end" in bytes.
std::string Matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return regex.status().message();
  std::vector<Span> matches;
  EXPECT_TRUE((*regex)->FindAll(text, matches).ok());
  std::string out;
  for (const Span& match : matches) {
    out += std::to_string(match.begin) + "-" + std::to_string(match.end) + " ";
  }
  return out;
}

TEST(RegexTest, MeansWhatItDoesInOniguruma) {
  const std::vector<std::array<std::string, 3>> cases = {
      {R"(\w+)", "हिन्दी ab", "0-18 19-21 "},  // with its marks
      {R"([\w-]+)", "नि-b c", "0-8 9-10 "},
      {R"(\w+)", "Ⅷⓐ-½", "0-6 "},
      {R"(\W+)", "नि--b", "6-8 "},
      {R"(\b)", "test string", "0-0 4-4 5-5 11-11 "},
      {R"(\b)", "नि न", "0-0 6-6 7-7 10-10 "},
      {R"(\B)", "ab", "1-1 "},
      {R"(\h+)", "xfag", "1-3 "},
      {R"([\h-]+)", "x-ag", "1-3 "},
      {R"(\v)", "a\n\v", "2-3 "},
      {R"(\u0062+)", "abb", "1-3 "},
      {R"([[:punct:]\s]+)", "a, b!", "1-3 4-5 "},
      {R"([^[:space:][:alpha:]]+)", "ab 12\n3", "3-5 6-7 "},
      {R"([[:^digit:]]+)", "ab1", "0-2 "},
      {R"( ?[^(\s|[.,!?…。，、।۔،])]+)", "Hello, wörld (a|b).", "0-5 6-13 15-16 17-18 "},
      {R"([a[bc]d]+)", "xabcdx", "1-5 "},
      {R"([]a]+)", "]a[", "0-2 "},
      {R"([\]\[]+)", "a[]", "1-3 "},
      {R"(^ +)", "  a\n  b\n", "0-2 4-6 "},
      {R"(a$)", "a\na", "0-1 2-3 "},
      {R"(\Aa|a\z)", "a\na\na", "0-1 4-5 "},
      {R"(.+)", "a\rb\nc", "0-3 4-5 "},
      {R"(x{,2}y)", "xxxy", "1-4 "},
      {R"(a{2,3}?)", "aaaa", "0-2 2-4 "},
      {R"(a{b)", "a{b", "0-3 "},
      {R"((?i:'S)|x)", "'s'SX", "0-2 2-4 "},
      {R"((?i)a|b)", "AB", "0-1 1-2 "},
      {R"(a&&b)", "a&&b", "0-4 "},
      // An empty match right behind another is none; nor is the next one to come.
      {R"(\d*)", "1a", "0-1 2-2 "},
      {R"(\d*)", "a1bbb2", "0-0 1-2 3-3 4-4 5-6 "},
      {R"(a|$)", "a b", "0-1 "},
  };
  for (const auto& [pattern, text, matches] : cases) {
    EXPECT_EQ(Matches(pattern, text), matches) << pattern;
  }
}

TEST(RegexTest, WhatItCannotSayIsRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"(?m)a.b", "'(?m)'"},
      {"(?x:a b)", "'(?x:'"},
      {"a(?i)b|c", "'(?i)'"},
      {"a{2}+", "'{2}+'"},
      {"a{2}?", "'{2}?'"},
      {"[a[^b]]", "a negated or empty set"},
      {"[a-[b]]", "a hyphen"},
      {"[[b]-z]", "a hyphen"},
      {"[[:graph:]]", "'[:graph:]'"},
      {R"([\W_])", "\\W in"},
      {R"(\Qa\E)", "\\Q"},
      {"(*CRLF)a", "'(*'"},
      {"[a&&b]", "'&&'"},
      {"[[:^word:]]", "'[:^word:]'"},
  };
  for (const auto& [pattern, words] : cases) {
    const auto regex = Regex::Compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_NE(regex.status().message().find(words), std::string::npos)
        << pattern << ": " << regex.status().ToString();
  }
  for (const char* damaged :
       {"[", "[[", "[[:", "\\", "(?", "(?#", "{", "a{1", "[\\", "\\p{", "[]"}) {
    (void)Regex::Compile(damaged);
  }
}

std::string Pieces(const std::string& normalizer, const std::string& pre, std::string_view text) {
  auto tokenizer = Load(R"({"normalizer":)" + normalizer + R"(,"pre_tokenizer":)" + pre +
                        R"(,"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0]]}})");
  return tokenizer ? ShowText(*tokenizer, text) : "";
}

TEST(StagesTest, NormalizersKeepOrigins) {
  const std::string split = R"({"type":"WhitespaceSplit"})";
  EXPECT_EQ(Pieces(R"({"type":"NFC"})", split, "e\xCC\x81 x"), "é@0-1 x@3-4 ");
  EXPECT_EQ(Pieces(R"({"type":"NFD"})", split, "é x"), "e\xCC\x81@0-1 x@2-3 ");
  EXPECT_EQ(Pieces(R"({"type":"NFKC"})", split, "ﬁ ½"), "fi@0-1 1⁄2@2-3 ");
  EXPECT_EQ(Pieces(R"({"type":"NFC"})", split, "\u1112\u1161\u11ab"), "한@0-1 ");
  EXPECT_EQ(Pieces(R"({"type":"Lowercase"})", split, "ÀB İ"), "àb@0-2 i\u0307@3-4 ");
  EXPECT_EQ(Pieces(R"({"type":"Strip","strip_left":true,"strip_right":true})", "null", "  a b "),
            "a b@2-5 ");
  EXPECT_EQ(Pieces(R"({"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"StripAccents"}]})",
                   split, "é ü"),
            "e@0-1 u@2-3 ");
  EXPECT_EQ(Pieces(R"({"type":"Replace","pattern":{"Regex":"b+"},"content":"-"})", split, "abbc d"),
            "a-c@0-4 d@5-6 ");
  EXPECT_EQ(Pieces(R"({"type":"Replace","pattern":{"Regex":"\\d*"},"content":"X"})", "null", "1a"),
            "XaX@0-2 ");
}

TEST(StagesTest, SplitBehaviours) {
  auto with = [](const std::string& behavior, bool invert) {
    return Pieces("null",
                  R"({"type":"Split","pattern":{"Regex":"-"},"behavior":")" + behavior +
                      R"(","invert":)" + (invert ? "true" : "false") + "}",
                  "the-final--countdown");
  };
  EXPECT_EQ(with("Removed", false), "the@0-3 final@4-9 countdown@11-20 ");
  EXPECT_EQ(with("Isolated", false), "the@0-3 -@3-4 final@4-9 -@9-10 -@10-11 countdown@11-20 ");
  EXPECT_EQ(with("MergedWithPrevious", false), "the-@0-4 final-@4-10 -@10-11 countdown@11-20 ");
  EXPECT_EQ(with("MergedWithNext", false), "the@0-3 -final@3-9 -@9-10 -countdown@10-20 ");
  EXPECT_EQ(with("Contiguous", false), "the@0-3 -@3-4 final@4-9 --@9-11 countdown@11-20 ");
  EXPECT_EQ(with("Removed", true), "-@3-4 -@9-10 -@10-11 ");
}

TEST(StagesTest, PreTokenizers) {
  EXPECT_EQ(Pieces("null", R"({"type":"Whitespace"})", "a_b, c!?"), "a_b@0-3 ,@3-4 c@5-6 !?@6-8 ");
  EXPECT_EQ(Pieces("null", R"({"type":"Digits","individual_digits":true})", "a12"),
            "a@0-1 1@1-2 2@2-3 ");
  EXPECT_EQ(Pieces("null", R"({"type":"Digits"})", "a12b"), "a@0-1 12@1-3 b@3-4 ");
  EXPECT_EQ(Pieces("null", R"({"type":"Punctuation"})", "a,“b"), "a@0-1 ,@1-2 “@2-3 b@3-4 ");
}

TEST(ErrorsTest, WhatIsNotSupportedIsNamed) {
  const std::string model = R"("model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0]]})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"normalizer":{"type":"Nmt"},)" + model + "}", "normalizer.type: 'Nmt'"},
      {R"({"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"UnicodeScripts"}]},)" +
           model + "}",
       "pre_tokenizer.pretokenizers[0].type: 'UnicodeScripts'"},
      {R"({"decoder":{"type":"CTC"},)" + model + "}", "decoder.type: 'CTC'"},
      {R"({"surprise":1,)" + model + "}", "surprise"},
      {R"({"model":{"type":"WordLevel","vocab":{}}})", "model.type: 'WordLevel'"},
      {R"({"model":{"type":"BPE","dropout":0.1,"vocab":{},"merges":[]}})", "model.dropout"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})", "merges[0]: 'b'"},
      {R"({"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}})", "model.vocab['a']"},
      {R"({"model":{"type":"BPE","vocab":{"a":1,"b":1},"merges":[]}})", "comes twice"},
      {R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Removed"},)" +
           model + "}",
       "pre_tokenizer.pattern.Regex"},
      {R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA////"},)" + model + "}",
       "normalizer.precompiled_charsmap"},
      {R"({"added_tokens":[{"id":7,"content":"<unk>"}],)" + model + "}", "added_tokens[0].id"},
      {"{\"model\":", "not JSON"},
      {"[]", "must be an object"},
      {std::string(100000, '['), "nested"},
  };
  for (const auto& [json, words] : cases) {
    auto tokenizer = Tokenizer::FromJson(json);
    ASSERT_FALSE(tokenizer.ok()) << json;
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(tokenizer.status().message().find(words), std::string::npos)
        << tokenizer.status().ToString();
  }
}

TEST(ErrorsTest, DamagedFilesNeverCrash) {
  for (const std::string& good : {std::string(kBert), std::string(kLlama), ByteBpe()}) {
    uint32_t state = 7;
    for (size_t i = 0; i < 600; ++i) {
      std::string bad = good;
      state = state * 1664525u + 1013904223u;
      bad[(state >> 8) % bad.size()] = static_cast<char>(state >> 3);
      if (i % 3 == 0) bad.resize((state >> 5) % bad.size());
      auto tokenizer = Tokenizer::FromJson(bad);
      if (tokenizer.ok()) (void)(*tokenizer)->Encode("hello café [SEP] <e>");
    }
  }
}

TEST(ErrorsTest, TextMustBeUtf8AndNormalizersMayNotBlowItUp) {
  auto tokenizer = Load(kLlama);
  EXPECT_EQ(tokenizer->Encode("a\xFFz").status().code(), StatusCode::kInvalidArgument);
  std::string steps;
  for (int i = 0; i < 40; ++i) {
    steps += (i ? "," : "") +
             std::string(R"({"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaa"})");
  }
  auto bomb = Load(R"({"normalizer":{"type":"Sequence","normalizers":[)" + steps +
                   R"(]},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0]]}})");
  EXPECT_EQ(bomb->Encode("a").status().code(), StatusCode::kResourceExhausted);
}

TEST(ThreadsTest, ManyThreadsGetTheSameIds) {
  auto tokenizer = Load(ByteBpe());
  const auto expected = tokenizer->EncodeIds("hello world he llo").value();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        EXPECT_EQ(tokenizer->EncodeIds("hello world he llo").value(), expected);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace lepton::tokenizer
