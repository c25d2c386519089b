#include "worker/data/text_encoder.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace lepton::worker {
namespace {

constexpr std::string_view kBytes = "bytes";
constexpr const char* kEndNames[] = {"<|endoftext|>", "</s>",       "<|end_of_text|>",
                                     "<|eot_id|>",    "<|im_end|>", "<eos>"};

// How many of two texts' tokens are kept when `room` are, as Hugging Face cuts the longest first:
// the longer text is cut to what the shorter one leaves, or both to a half and the longer one to
// the larger.
std::array<int64_t, 2> Kept(int64_t first, int64_t second, int64_t room) {
  if (first + second <= room) return {first, second};
  int64_t shorter = std::min(first, second);
  int64_t longer = std::max(shorter, room - shorter);
  if (shorter + longer > room) {
    shorter = room / 2;
    longer = room - shorter;
  }
  return first > second ? std::array{longer, shorter} : std::array{shorter, longer};
}

// Drops the ends of the texts until `context` tokens are left; what was added stays.
TokenText Cut(const tokenizer::Encoding& encoding, int64_t context) {
  const auto of = [&](int8_t sequence) {
    return std::count(encoding.sequences.begin(), encoding.sequences.end(), sequence);
  };
  std::array<int64_t, 2> left = Kept(of(0), of(1), std::max<int64_t>(0, context - of(-1)));
  TokenText text;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    // With more added tokens than the context holds, the end goes.
    const int8_t sequence = encoding.sequences[i];
    if (sequence >= 0 && left[sequence]-- <= 0) continue;
    if (static_cast<int64_t>(text.ids.size()) == context) break;
    text.ids.push_back(static_cast<int32_t>(encoding.ids[i]));
    text.types.push_back(static_cast<int32_t>(encoding.type_ids[i]));
  }
  if (text.ids.empty()) text.ids = text.types = {0};
  return text;
}

TokenText BytesOfText(std::string_view text, int64_t context) {
  text = text.substr(0, context);
  TokenText out;
  for (const char c : text) out.ids.push_back(static_cast<unsigned char>(c));
  if (out.ids.empty()) out.ids = {0};
  return out;
}

// The longer one loses its end, one byte is for the zero between.
TokenText BytesOfPair(std::string_view first, std::string_view second, int64_t context) {
  const auto kept = Kept(static_cast<int64_t>(first.size()), static_cast<int64_t>(second.size()),
                         std::max<int64_t>(0, context - 1));
  first = first.substr(0, kept[0]);
  second = second.substr(0, kept[1]);
  TokenText out;
  for (const char c : first) out.ids.push_back(static_cast<unsigned char>(c));
  out.ids.push_back(0);
  out.types.assign(out.ids.size(), 0);
  for (const char c : second) out.ids.push_back(static_cast<unsigned char>(c));
  out.types.resize(out.ids.size(), 1);
  return out;
}

// Bytes as UTF-8: what is none becomes U+FFFD.
std::string ToText(const std::vector<uint32_t>& ids) {
  std::string text;
  const auto tail = [&](size_t i) { return i < ids.size() && (ids[i] & 0xC0) == 0x80; };
  for (size_t i = 0; i < ids.size();) {
    const uint32_t c = ids[i];
    const size_t length = c < 0x80                ? 1
                          : c >= 0xC2 && c < 0xE0 ? 2
                          : c >= 0xE0 && c < 0xF0 ? 3
                          : c >= 0xF0 && c < 0xF5 ? 4
                                                  : 0;
    bool whole = length > 0;
    for (size_t k = 1; k < length; ++k) whole = whole && tail(i + k);
    if (!whole) {
      text += "\xEF\xBF\xBD";
      ++i;
      continue;
    }
    for (size_t k = 0; k < length; ++k) text += static_cast<char>(ids[i + k]);
    i += length;
  }
  return text;
}

}  // namespace

Result<std::shared_ptr<const TextEncoder>> TextEncoder::Load(const storage::ObjectStore& objects,
                                                             const std::string& name) {
  auto encoder = std::shared_ptr<TextEncoder>(new TextEncoder());
  encoder->name_ = name;
  if (name == kBytes) return std::shared_ptr<const TextEncoder>(encoder);
  LEPTON_ASSIGN_OR_RETURN(const std::string json, objects.Get(name));
  auto tokenizer = tokenizer::Tokenizer::FromJson(json);
  if (!tokenizer.ok()) return tokenizer.status().WithContext("dataset.tokenizer");
  encoder->tokenizer_ = *std::move(tokenizer);
  for (const char* end : kEndNames) {
    if (const auto id = encoder->tokenizer_->TokenToId(end)) encoder->ends_.push_back(*id);
  }
  return std::shared_ptr<const TextEncoder>(encoder);
}

int64_t TextEncoder::vocabulary() const {
  return bytes() ? 256 : int64_t{tokenizer_->vocab_size()};
}

Result<std::vector<uint32_t>> TextEncoder::EncodeStream(std::string_view text) const {
  if (!bytes()) return tokenizer_->EncodeIds(text, /*add_special_tokens=*/false);
  std::vector<uint32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

Result<TokenText> TextEncoder::EncodeText(std::string_view text, int64_t context) const {
  if (bytes()) return BytesOfText(text, context);
  LEPTON_ASSIGN_OR_RETURN(const tokenizer::Encoding encoding, tokenizer_->Encode(text));
  return Cut(encoding, context);
}

Result<TokenText> TextEncoder::EncodePair(std::string_view first, std::string_view second,
                                          int64_t context) const {
  if (bytes()) return BytesOfPair(first, second, context);
  LEPTON_ASSIGN_OR_RETURN(const tokenizer::Encoding encoding,
                          tokenizer_->EncodePair(first, second));
  return Cut(encoding, context);
}

Result<std::string> TextEncoder::Decode(const std::vector<uint32_t>& ids) const {
  return bytes() ? Result<std::string>(ToText(ids)) : tokenizer_->Decode(ids);
}

bool TextEncoder::IsEnd(uint32_t id) const {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
}

std::string BytesAsTokenizerJson() {
  nlohmann::json vocabulary = nlohmann::json::object();
  uint32_t next = 256;  // of bytes that are no visible letter of Latin-1
  std::string zero;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    const uint32_t point = visible ? byte : next++;
    std::string letter;
    if (point < 0x80) {
      letter = static_cast<char>(point);
    } else {
      letter = {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
    }
    if (byte == 0) zero = letter;
    vocabulary[letter] = byte;
  }
  const nlohmann::json level = {{"type", "ByteLevel"},
                                {"add_prefix_space", false},
                                {"trim_offsets", false},
                                {"use_regex", false}};
  const auto part = [](const char* id, int type) {
    return nlohmann::json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const nlohmann::json separator = {{"SpecialToken", {{"id", zero}, {"type_id", 0}}}};
  const nlohmann::json ends = {
      {"type", "TemplateProcessing"},
      {"single", {part("A", 0)}},
      {"pair", {part("A", 0), separator, part("B", 1)}},
      {"special_tokens", {{zero, {{"id", zero}, {"ids", {0}}, {"tokens", {zero}}}}}}};
  const nlohmann::json whole = {{"version", "1.0"},
                                {"truncation", nullptr},
                                {"padding", nullptr},
                                {"added_tokens", nlohmann::json::array()},
                                {"normalizer", nullptr},
                                {"pre_tokenizer", level},
                                {"post_processor", ends},
                                {"decoder", level},
                                {"model",
                                 {{"type", "BPE"},
                                  {"dropout", nullptr},
                                  {"unk_token", nullptr},
                                  {"continuing_subword_prefix", nullptr},
                                  {"end_of_word_suffix", nullptr},
                                  {"fuse_unk", false},
                                  {"byte_fallback", false},
                                  {"ignore_merges", false},
                                  {"vocab", vocabulary},
                                  {"merges", nlohmann::json::array()}}}};
  return whole.dump(1);
}

}  // namespace lepton::worker
