#include "runtime/base/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <string>
#include <string_view>

namespace lepton {
namespace {

constexpr size_t kMostBytes = 4096;
constexpr uint32_t kHeapKib = 4096;
// Of a search: some ten milliseconds. A thousand characters, each looked through from all those
// before it, take 650'000.
constexpr int64_t kSteps = 700'000;
constexpr size_t kCharactersAStep = 16;  // that an item of a pattern passes over at once
constexpr size_t kRepeatsAStep = 4;      // of \X, the dearest, in an item that may yet fail

// What a search has done. PCRE2's own limit begins anew at each place where a match may.
struct Work {
  std::string_view pattern;
  int64_t left = kSteps;
  size_t at = 0;
};

// How often an item such as \X{1000} must be there at least: it may pass over nearly all of that
// and fail, and nothing is called then.
size_t LeastRepeats(std::string_view item) {
  const size_t open = item.rfind('{');
  const bool counted = item.ends_with('}') || item.ends_with("}+") || item.ends_with("}?");
  if (open == std::string_view::npos || !counted) return 1;
  size_t count = 0;
  for (size_t i = open + 1; i < item.size() && item[i] >= '0' && item[i] <= '9'; ++i) {
    count = std::min<size_t>(count * 10 + static_cast<size_t>(item[i] - '0'), 65'535);
  }
  return count;
}

// Called before each item of a pattern is tried.
int Count(pcre2_callout_block* block, void* data) {
  Work& work = *static_cast<Work*>(data);
  const size_t at = block->current_position;
  const size_t moved = at > work.at ? at - work.at : work.at - at;
  const std::string_view item = work.pattern.substr(
      std::min(block->pattern_position, work.pattern.size()), block->next_item_length);
  const size_t repeats = std::min<size_t>(
      LeastRepeats(item), block->subject_length - std::min(at, block->subject_length));
  work.left -= 1 + static_cast<int64_t>(moved / kCharactersAStep + repeats / kRepeatsAStep);
  work.at = at;
  return work.left < 0 ? PCRE2_ERROR_MATCHLIMIT : 0;
}

std::string Words(int error) {
  PCRE2_UCHAR text[256];
  const int length = pcre2_get_error_message(error, text, sizeof(text));
  return length < 0 ? "error " + std::to_string(error)
                    : std::string(reinterpret_cast<const char*>(text), length);
}

}  // namespace

struct Pattern::Code {
  std::string text;
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Pattern::Pattern(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Result<Pattern> Pattern::Compile(std::string_view text) {
  if (text.size() > kMostBytes) {
    return InvalidArgument("not a regular expression: longer than 4096 bytes");
  }
  int error = 0;
  PCRE2_SIZE where = 0;
  auto code = std::make_unique<Code>();
  code->text = text;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT, &error, &where, nullptr);
  if (code->code == nullptr) {
    return InvalidArgument("not a regular expression: " + Words(error) + ", at character " +
                           std::to_string(where + 1));
  }
  code->context = pcre2_match_context_create(nullptr);
  if (code->context == nullptr) return ResourceExhausted("no memory for a regular expression");
  pcre2_set_heap_limit(code->context, kHeapKib);
  return Pattern(std::move(code));
}

Result<bool> Pattern::Found(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  // Of this search alone, since it counts.
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(
      pcre2_match_context_copy(code_->context), &pcre2_match_context_free);
  if (data == nullptr || context == nullptr) return ResourceExhausted("no memory for a search");
  Work work{.pattern = code_->text};
  pcre2_set_callout(context.get(), &Count, &work);
  const int count = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                0, 0, data.get(), context.get());
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0) return ResourceExhausted("the search gave up: " + Words(count));
  return true;
}

}  // namespace lepton
