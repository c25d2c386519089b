#include "runtime/formats/tokenizer/post_processor.h"

#include <algorithm>
#include <iterator>

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

bool IsSpaceInToken(char32_t c) {
  return c == 0x120 || IsWhiteSpace(c);
}  // 0x120: byte 0x20

void Trim(Encoding& encoding, bool add_prefix_space) {
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    std::u32string token = ToCodePoints(encoding.tokens[i]);
    size_t leading = 0, trailing = 0;
    while (leading < token.size() && IsSpaceInToken(token[leading])) ++leading;
    while (trailing < token.size() && IsSpaceInToken(token[token.size() - 1 - trailing])) {
      ++trailing;
    }
    Offsets& offsets = encoding.offsets[i];
    if (leading > 0) {
      // The lone space that the pre-tokeniser put before the text is not the text's.
      if ((i == 0 || offsets.begin == 0) && add_prefix_space && leading == 1) leading = 0;
      offsets.begin = std::min(offsets.begin + static_cast<uint32_t>(leading), offsets.end);
    }
    if (trailing > 0 && offsets.end >= trailing) {
      offsets.end = std::max(offsets.end - static_cast<uint32_t>(trailing), offsets.begin);
    }
  }
}

template <typename T>
void MoveAppend(std::vector<T>& to, std::vector<T>& from) {
  if (to.empty()) {
    to = std::move(from);
    return;
  }
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

void AppendSequence(Encoding& out, Encoding from) {
  MoveAppend(out.ids, from.ids);
  MoveAppend(out.tokens, from.tokens);
  MoveAppend(out.offsets, from.offsets);
  MoveAppend(out.type_ids, from.type_ids);
  MoveAppend(out.special_mask, from.special_mask);
  MoveAppend(out.sequences, from.sequences);
}

void AppendSpecial(Encoding& out, const TemplateItem& item) {
  for (size_t i = 0; i < item.ids.size(); ++i) {
    out.ids.push_back(item.ids[i]);
    out.tokens.push_back(item.tokens[i]);
    out.offsets.push_back({});
    out.type_ids.push_back(item.type_id);
    out.special_mask.push_back(1);
    out.sequences.push_back(-1);
  }
}

}  // namespace

Encoding PostProcessor::Apply(std::vector<Encoding> encodings, bool add_special_tokens) const {
  for (size_t i = 0; i < encodings.size(); ++i) {
    encodings[i].type_ids.assign(encodings[i].ids.size(), static_cast<uint32_t>(i));
    encodings[i].special_mask.assign(encodings[i].ids.size(), 0);
    encodings[i].sequences.assign(encodings[i].ids.size(), static_cast<int8_t>(i));
    if (trim) Trim(encodings[i], trim->add_prefix_space);
  }
  const std::vector<TemplateItem>& items = encodings.size() == 1 ? single : pair;
  Encoding out;
  if (!has_template || (!add_special_tokens && !always_types)) {
    for (Encoding& encoding : encodings) AppendSequence(out, std::move(encoding));
    return out;
  }
  for (const TemplateItem& item : items) {
    if (item.sequence < 0) {
      if (add_special_tokens) AppendSpecial(out, item);
      continue;
    }
    Encoding copy = encodings[item.sequence];  // a template may name a sequence twice
    copy.type_ids.assign(copy.ids.size(), item.type_id);
    AppendSequence(out, std::move(copy));
  }
  return out;
}

std::vector<uint32_t> PostProcessor::ApplyIds(std::vector<uint32_t> ids,
                                              bool add_special_tokens) const {
  if (!has_template || (!add_special_tokens && !always_types)) return ids;
  std::vector<uint32_t> out;
  out.reserve(ids.size() + 8);
  for (const TemplateItem& item : single) {
    if (item.sequence >= 0) {
      out.insert(out.end(), ids.begin(), ids.end());
    } else if (add_special_tokens) {
      out.insert(out.end(), item.ids.begin(), item.ids.end());
    }
  }
  return out;
}

}  // namespace lepton::tokenizer
