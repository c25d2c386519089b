#include "runtime/formats/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "runtime/formats/tokenizer/regex_spelling.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kStepsPerMatch = 5'000'000;
constexpr uint32_t kHeapKib = 64 * 1024;

struct FreeCompile {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string Words(int error) {
  PCRE2_UCHAR text[256];
  int length = pcre2_get_error_message(error, text, sizeof(text));
  return length < 0 ? "error " + std::to_string(error)
                    : std::string(reinterpret_cast<const char*>(text), length);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::~Regex() = default;

Result<std::unique_ptr<Regex>> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) return InvalidArgument("the regex is over 16 KiB long");
  LEPTON_ASSIGN_OR_RETURN(const std::string spelled, SpellForPcre2(pattern));
  const std::unique_ptr<pcre2_compile_context, FreeCompile> lines(
      pcre2_compile_context_create(nullptr));
  if (!lines) return ResourceExhausted("no memory for a regex");
  pcre2_set_newline(lines.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE where = 0;
  auto code = std::make_unique<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &where, lines.get());
  if (!code->code) {
    return InvalidArgument("the regex does not compile: " + Words(error) + " near '" +
                           spelled.substr(where < spelled.size() ? where : spelled.size(), 20) +
                           "'");
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // without JIT it matches all the same
  code->context = pcre2_match_context_create(nullptr);
  if (!code->context) return ResourceExhausted("no memory for a regex");
  pcre2_set_match_limit(code->context, kStepsPerMatch);
  pcre2_set_heap_limit(code->context, kHeapKib);
  return std::unique_ptr<Regex>(new Regex(std::move(code)));
}

Status Regex::FindAll(std::string_view text, std::vector<Span>& matches) const {
  matches.clear();
  std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  if (!data) return ResourceExhausted("no memory for a regex match");
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
  // As the reference's finder: the first empty match behind one that is not empty does not count.
  bool skip_empty = false;
  for (size_t at = 0; at <= text.size();) {
    int count = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.get(),
                            code_->context);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its stack on the heap
      count = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data.get(), code_->context);
    }
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) return ResourceExhausted("the tokenizer's regex gave up: " + Words(count));
    size_t begin = found[0], end = found[1];
    if (begin > end || begin < at) return InvalidArgument("the regex uses \\K in a lookaround");
    at = end;
    if (begin != end || !skip_empty) {
      matches.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
    skip_empty = begin != end;
    if (begin == end) {
      if (at >= text.size()) break;
      NextCodePoint(text, at);
    }
  }
  return {};
}

}  // namespace lepton::tokenizer
