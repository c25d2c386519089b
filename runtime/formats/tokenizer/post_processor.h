// Post-processors of tokenizer.json, brought to one form: offsets are trimmed, then sequences and
// special tokens are put together. Threads: plain values.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "runtime/formats/tokenizer/tokenizer.h"

namespace lepton::tokenizer {

struct TemplateItem {
  int sequence = -1;  // 0 or 1: that text; -1: the special tokens
  uint32_t type_id = 0;
  std::vector<uint32_t> ids;
  std::vector<std::string> tokens;
};

struct TrimOffsets {
  bool add_prefix_space = true;
};

struct PostProcessor {
  std::optional<TrimOffsets> trim;
  bool has_template = false;
  // Whether type ids come from the template even when special tokens are left out.
  bool always_types = false;
  std::vector<TemplateItem> single;
  std::vector<TemplateItem> pair;

  // One or two encodings into one.
  Encoding Apply(std::vector<Encoding> encodings, bool add_special_tokens) const;
  std::vector<uint32_t> ApplyIds(std::vector<uint32_t> ids, bool add_special_tokens) const;
};

}  // namespace lepton::tokenizer
