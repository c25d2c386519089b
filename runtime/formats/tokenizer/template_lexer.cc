#include "runtime/formats/tokenizer/template_lexer.h"

#include <algorithm>

#include "runtime/formats/tokenizer/template_syntax.h"

namespace lepton::tokenizer {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";

bool IsNameChar(char c, bool first) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         (!first && c >= '0' && c <= '9');
}
bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

char Unescape(char c, int line) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      FailAt(line, std::string("the escape '\\") + c + "' is not supported");
  }
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<TemplateChunk> Run() {
    while (at_ < source_.size()) {
      size_t open = FindOpen();
      if (open == std::string_view::npos) {
        Text(source_.size());
        break;
      }
      char kind = source_[open + 1];
      char mark = open + 2 < source_.size() ? source_[open + 2] : 0;
      size_t text_end = open;
      if (mark == '-') {
        while (text_end > at_ && kSpaces.find(source_[text_end - 1]) != kSpaces.npos) --text_end;
      } else if (kind != '{' && mark != '+') {
        text_end = StripLine(open);
      }
      Text(text_end);
      Skip(open + 2 + (mark == '-' || mark == '+'));
      kind == '#' ? Comment() : Tag(kind);
    }
    return std::move(chunks_);
  }

 private:
  size_t FindOpen() const {
    for (size_t i = source_.find('{', at_); i != std::string_view::npos && i + 1 < source_.size();
         i = source_.find('{', i + 1)) {
      if (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#') return i;
    }
    return std::string_view::npos;
  }

  // lstrip_blocks: blanks between the line's begin and a block vanish.
  size_t StripLine(size_t open) const {
    size_t begin = open;
    while (begin > at_ && (source_[begin - 1] == ' ' || source_[begin - 1] == '\t')) --begin;
    bool line_begin = begin == 0 || source_[begin - 1] == '\n';
    return line_begin ? begin : open;
  }

  void Skip(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + end, '\n'));
    at_ = end;
  }

  void Text(size_t end) {
    if (end > at_) {
      chunks_.push_back(
          {TemplateChunk::Kind::kText, line_, std::string(source_.substr(at_, end - at_)), {}});
    }
    Skip(end);
  }

  void AfterTag(bool minus, bool block) {
    if (minus) {
      Skip(std::min(source_.find_first_not_of(kSpaces, at_), source_.size()));
    } else if (block && at_ < source_.size() && source_[at_] == '\n') {
      Skip(at_ + 1);  // trim_blocks
    }
  }

  void Comment() {
    size_t close = source_.find("#}", at_);
    if (close == std::string_view::npos) FailAt(line_, "the comment has no end");
    bool minus = close > at_ && source_[close - 1] == '-';
    Skip(close + 2);
    AfterTag(minus, true);
  }

  void Tag(char kind) {
    TemplateChunk chunk;
    chunk.kind = kind == '{' ? TemplateChunk::Kind::kOutput : TemplateChunk::Kind::kBlock;
    chunk.line = line_;
    const std::string close = kind == '{' ? "}}" : "%}";
    int open_brackets = 0;
    while (true) {
      Skip(std::min(source_.find_first_not_of(kSpaces, at_), source_.size()));
      if (at_ >= source_.size()) FailAt(chunk.line, "the tag has no end");
      std::string_view rest = source_.substr(at_);
      bool minus = rest[0] == '-' && rest.substr(1).starts_with(close);
      if (minus || (rest.starts_with(close) && open_brackets == 0)) {
        chunk.tokens.push_back({TemplateToken::Kind::kEnd, "", line_});
        Skip(at_ + 2 + minus);
        chunks_.push_back(std::move(chunk));
        AfterTag(minus, kind == '%');
        return;
      }
      chunk.tokens.push_back(Token());
      const TemplateToken& token = chunk.tokens.back();
      if (token.kind != TemplateToken::Kind::kSymbol) continue;
      if (token.text == "{" || token.text == "[" || token.text == "(") ++open_brackets;
      if (token.text == "}" || token.text == "]" || token.text == ")") --open_brackets;
    }
  }

  TemplateToken Token() {
    char c = source_[at_];
    int line = line_;
    if (c == '"' || c == '\'') return {TemplateToken::Kind::kString, String(c), line};
    size_t end = at_;
    if (IsNameChar(c, true)) {
      while (end < source_.size() && IsNameChar(source_[end], false)) ++end;
      return {TemplateToken::Kind::kName, Take(end), line};
    }
    if (IsDigit(c)) {
      while (end < source_.size() && IsDigit(source_[end])) ++end;
      if (end - at_ > 18) FailAt(line, "the number is too long");
      return {TemplateToken::Kind::kNumber, Take(end), line};
    }
    for (std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (source_.substr(at_).starts_with(two)) {
        return {TemplateToken::Kind::kSymbol, Take(at_ + 2), line};
      }
    }
    if (std::string_view("()[]{}.,:|+-*/%~<>=").find(c) == std::string_view::npos) {
      FailAt(line, std::string("'") + (c >= 32 && c < 127 ? c : '?') + "' is not expected here");
    }
    return {TemplateToken::Kind::kSymbol, Take(at_ + 1), line};
  }

  std::string Take(size_t end) {
    std::string text(source_.substr(at_, end - at_));
    Skip(end);
    return text;
  }

  std::string String(char quote) {
    int line = line_;
    std::string text;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] == '\\' && i + 1 < source_.size()) {
        text += Unescape(source_[++i], line);
      } else {
        text += source_[i];
      }
    }
    if (i >= source_.size()) FailAt(line, "the string has no end");
    Skip(i + 1);
    return text;
  }

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<TemplateChunk> chunks_;
};

}  // namespace

std::vector<TemplateChunk> LexTemplate(std::string_view source) {
  if (source.ends_with('\n')) source.remove_suffix(1);  // as Jinja does
  return Lexer(source).Run();
}

}  // namespace lepton::tokenizer
