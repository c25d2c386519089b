#include "runtime/formats/tokenizer/regex_spelling.h"

#include <algorithm>

namespace lepton::tokenizer {
namespace {

// PCRE2 counts U+180E as a space, Unicode and Oniguruma do not.
constexpr std::string_view kSpace = R"(\p{Z}\t\n\x0b\f\r\x{85})";
// Letters and digits but no marks are words to PCRE2. Here: what is alphabetic (letters, letter
// numbers, and the circled and squared letters), marks, decimal numbers and connectors.
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kHex = "0-9a-fA-F";

struct Posix {
  std::string_view name;
  std::string_view members;  // "": PCRE2 means the same
};
constexpr Posix kPosix[] = {{"ascii", ""},
                            {"cntrl", ""},
                            {"digit", ""},
                            {"punct", ""},
                            {"xdigit", ""},
                            {"alpha", R"(\p{Alphabetic})"},
                            {"alnum", R"(\p{Alphabetic}\p{Nd})"},
                            {"lower", R"(\p{Lowercase})"},
                            {"upper", R"(\p{Uppercase})"},
                            {"blank", R"(\p{Zs}\t)"},
                            {"space", kSpace},
                            {"word", kWord}};

bool IsPatternDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsAsciiLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool IsHexDigit(char c) {
  return IsPatternDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

Status Unsupported(const std::string& what) {
  return InvalidArgument("the regex uses " + what + ", which is not supported");
}

class Speller {
 public:
  explicit Speller(std::string_view pattern) : left_(pattern), whole_(pattern) {}

  Result<std::string> Run() {
    while (!left_.empty()) LEPTON_RETURN_IF_ERROR(Next());
    return std::move(out_);
  }

 private:
  Status Next() {
    switch (left_[0]) {
      case '\\':
        return Escape(/*in_class=*/false);
      case '[':
        return Class();
      case '(':
        return Group();
      case '{':
        return Interval();
      default:
        Copy(1);
        return {};
    }
  }

  void Copy(size_t bytes) {
    bytes = std::min(bytes, left_.size());
    out_ += left_.substr(0, bytes);
    left_.remove_prefix(bytes);
  }

  // A set by its members: in brackets of its own outside of a class.
  void Members(std::string_view members, bool in_class, bool negated = false) {
    out_ += in_class ? "" : negated ? "[^" : "[";
    out_ += members;
    if (!in_class) out_ += ']';
    // Behind a set a hyphen is one, and not the range of the set's last member.
    if (in_class && left_.starts_with('-')) {
      out_ += '\\';
      Copy(1);
    }
  }

  // At a word's border, or nowhere near one.
  void Border(bool border) {
    const std::string word = "[" + std::string(kWord) + "]";
    const std::string behind = "(?<=" + word + ")", not_behind = "(?<!" + word + ")";
    const std::string ahead = "(?=" + word + ")", not_ahead = "(?!" + word + ")";
    out_ += "(?:" + behind + (border ? not_ahead : ahead) + "|" + not_behind +
            (border ? ahead : not_ahead) + ")";
  }

  Status Escape(bool in_class) {
    if (left_.size() < 2) {
      Copy(1);
      return {};
    }
    const char c = left_[1];
    const auto members = [&](std::string_view set, bool negated = false) -> Status {
      if (in_class && negated) return Unsupported(std::string("\\") + c + " in brackets");
      left_.remove_prefix(2);
      Members(set, in_class, negated);
      return {};
    };
    switch (c) {
      case 's':
        return members(kSpace);
      case 'S':
        if (in_class) break;  // PCRE2's own is right but for U+180E
        return members(kSpace, /*negated=*/true);
      case 'w':
        return members(kWord);
      case 'W':
        return members(kWord, /*negated=*/true);
      case 'h':
        return members(kHex);
      case 'H':
        return members(kHex, /*negated=*/true);
      case 'b':
      case 'B':
        if (in_class) break;
        left_.remove_prefix(2);
        Border(c == 'b');
        return {};
      case 'v':
        left_.remove_prefix(2);
        out_ += "\\x0b";
        return {};
      case 'Q':
      case 'E':
        return Unsupported(std::string("\\") + c);
      case 'u':
        if (left_.size() < 6 || !std::all_of(left_.begin() + 2, left_.begin() + 6, IsHexDigit))
          break;
        out_ += "\\x{" + std::string(left_.substr(2, 4)) + "}";
        left_.remove_prefix(6);
        return {};
      default:
        break;
    }
    // With what is in braces, which is no interval: \p{L}, \x{20}.
    const bool braces = left_.size() > 2 && left_[2] == '{' && IsAsciiLetter(c);
    Copy(braces ? std::min(left_.find('}'), left_.size() - 1) + 1 : 2);
    return {};
  }

  // [...], where Oniguruma takes sets within the set. A nested one's members are the outer one's.
  Status Class() {
    Copy(1);
    if (left_.starts_with('^')) Copy(1);
    if (left_.starts_with(']')) Copy(1);
    for (int depth = 1; depth > 0 && !left_.empty();) {
      if (left_.starts_with("&&")) return Unsupported("'&&' (set intersection)");
      if (left_[0] == '\\') {
        LEPTON_RETURN_IF_ERROR(Escape(/*in_class=*/true));
      } else if (left_[0] == ']') {
        --depth;
        if (depth == 0) {
          Copy(1);
        } else {
          LEPTON_RETURN_IF_ERROR(Nested());
        }
      } else if (left_[0] == '[') {
        LEPTON_ASSIGN_OR_RETURN(const bool posix, PosixSet());
        if (posix) continue;
        ++depth;
        LEPTON_RETURN_IF_ERROR(Nested());
        if (left_.starts_with('^') || left_.starts_with(']')) {
          return Unsupported("a negated or empty set within a set");
        }
      } else {
        Copy(1);
      }
    }
    return {};
  }

  // Leaves a bracket within a class out. A hyphen beside it would become a range.
  Status Nested() {
    left_.remove_prefix(1);
    if (left_.starts_with('-') || out_.ends_with('-')) {
      return Unsupported("a hyphen beside a set within a set");
    }
    return {};
  }

  // [:name:] and [:^name:].
  Result<bool> PosixSet() {
    if (!left_.starts_with("[:")) return false;
    const size_t end = left_.find(":]");
    if (end == left_.npos || end < 2) return false;
    std::string_view name = left_.substr(2, end - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    if (!std::all_of(name.begin(), name.end(), IsAsciiLetter)) return false;
    const auto* known =
        std::find_if(std::begin(kPosix), std::end(kPosix), [&](auto& p) { return p.name == name; });
    if (known == std::end(kPosix) || (negated && !known->members.empty())) {
      return Unsupported("'" + std::string(left_.substr(0, std::min<size_t>(end + 2, 24))) + "'");
    }
    if (known->members.empty()) {
      Copy(end + 2);
    } else {
      left_.remove_prefix(end + 2);
      Members(known->members, /*in_class=*/true);
    }
    return true;
  }

  // (?i) and (?i:...) mean the same where they open all of it; m is another option here, and a lone
  // one within an expression takes its alternatives along.
  Status Group() {
    if (left_.starts_with("(*")) return Unsupported("'(*'");
    if (left_.starts_with("(?#")) {
      Copy(std::min(left_.find(')'), left_.size() - 1) + 1);
      return {};
    }
    if (left_.starts_with("(?")) {
      size_t end = 2;
      while (end < left_.size() && (IsAsciiLetter(left_[end]) || left_[end] == '-')) ++end;
      const std::string_view options = left_.substr(2, end - 2);
      const bool closed = end < left_.size() && left_[end] == ')';
      if (!options.empty() && (closed || (end < left_.size() && left_[end] == ':'))) {
        const bool at_start = left_.size() == whole_.size();
        if ((options != "i" && options != "-i") || (closed && !at_start)) {
          return Unsupported("'" + std::string(left_.substr(0, std::min<size_t>(end + 1, 24))) +
                             "' there");
        }
      }
    }
    Copy(1);
    return {};
  }

  Status Interval() {
    size_t end = 1;
    while (end < left_.size() && (IsPatternDigit(left_[end]) || left_[end] == ',')) ++end;
    const std::string_view inside = left_.substr(1, end - 1);
    const auto commas = std::count(inside.begin(), inside.end(), ',');
    const bool interval = end < left_.size() && left_[end] == '}' && commas <= 1 &&
                          inside.size() > static_cast<size_t>(commas);
    if (!interval) {
      Copy(1);
      return {};
    }
    const std::string_view behind = left_.substr(end + 1);
    if (behind.starts_with('+') || (commas == 0 && behind.starts_with('?'))) {
      return Unsupported("'" + std::string(left_.substr(0, std::min<size_t>(end + 2, 24))) + "'");
    }
    out_ += inside.starts_with(',') ? "{0" : "{";
    left_.remove_prefix(1);
    Copy(inside.size() + 1);
    return {};
  }

  std::string_view left_;
  const std::string_view whole_;
  std::string out_;
};

}  // namespace

Result<std::string> SpellForPcre2(std::string_view pattern) {
  return Speller(pattern).Run();
}

}  // namespace lepton::tokenizer
