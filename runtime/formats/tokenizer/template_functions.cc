#include "runtime/formats/tokenizer/template_functions.h"

#include <utf8proc.h>

#include <algorithm>

#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

std::string_view Strip(std::string_view text, std::string_view chars, bool left, bool right) {
  std::u32string dropped = ToCodePoints(chars);
  std::sort(dropped.begin(), dropped.end());
  auto drop = [&](char32_t c) {
    return dropped.empty() ? IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F)
                           : std::binary_search(dropped.begin(), dropped.end(), c);
  };
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    size_t start = at;
    if (drop(NextCodePoint(text, at))) continue;
    begin = std::min(begin, start);
    end = at;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return text.substr(begin, std::max(begin, end) - begin);
}

std::string ChangeCase(std::string_view text, bool upper) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    auto c = static_cast<utf8proc_int32_t>(NextCodePoint(text, at));
    AppendUtf8(static_cast<char32_t>(upper ? utf8proc_toupper(c) : utf8proc_tolower(c)), out);
  }
  return out;
}

std::string Quoted(const std::string& text) {
  return TemplateValue(text).dump(-1, ' ', false, TemplateValue::error_handler_t::replace);
}

// json.dumps(value, ensure_ascii=False, indent=indent)
void Dump(const TemplateValue& value, int indent, int level, std::string& out) {
  if (value.is_string()) {
    out += Quoted(value.get_ref<const std::string&>());
    return;
  }
  if (!value.is_structured() || value.empty()) {
    out += value.is_array() ? "[]" : value.is_object() ? "{}" : value.dump();
    return;
  }
  auto newline = [&](int depth) {
    if (indent >= 0) out += "\n" + std::string(static_cast<size_t>(depth * indent), ' ');
  };
  bool first = true;
  out += value.is_array() ? '[' : '{';
  for (auto item = value.begin(); item != value.end(); ++item) {
    if (!first) out += indent >= 0 ? "," : ", ";
    first = false;
    newline(level + 1);
    if (value.is_object()) out += Quoted(item.key()) + ": ";
    Dump(*item, indent, level + 1, out);
  }
  newline(level);
  out += value.is_array() ? ']' : '}';
}

size_t Length(const TemplateValue& value, int line) {
  if (HasItems(value)) return CountItems(value);
  FailAt(line, "this value has no length");
}

TemplateValue Items(const TemplateValue& value, int line) {
  TemplateValue out = TemplateValue::array();
  if (value.is_discarded()) return out;
  if (!value.is_object()) FailAt(line, "items wants a dict");
  for (auto item = value.begin(); item != value.end(); ++item) {
    out.push_back(TemplateValue::array({item.key(), *item}));
  }
  return out;
}

constexpr size_t kMostBytes = size_t{64} << 20;  // that one filter makes
constexpr size_t kMostParts = 1'000'000;

std::string Join(const TemplateValue& value, const std::string& separator, int line) {
  if (value.is_discarded()) return "";
  if (!value.is_array()) FailAt(line, "join wants a list");
  std::string out;
  for (size_t i = 0; i < value.size(); ++i) {
    if (i > 0) out += separator;
    out += ToText(value[i], line);
    if (out.size() > kMostBytes) FailAt(line, "the joined text is over 64 MiB");
  }
  return out;
}

// Roughly, in memory.
size_t BytesOf(const TemplateValue& value) {
  size_t bytes = 64;
  if (value.is_string()) bytes += value.get_ref<const std::string&>().size();
  if (value.is_structured()) {
    for (const TemplateValue& item : value) bytes += BytesOf(item);
  }
  return bytes;
}

// As Python's: without a separator at white space, of which there may be much.
TemplateValue SplitText(std::string_view text, const Arguments& arguments, int line) {
  const TemplateValue separator = arguments.Get(0, "sep"), most = arguments.Get(1, "maxsplit");
  const bool blanks = separator.is_discarded() || separator.is_null();
  if (!blanks && (!separator.is_string() || separator.get_ref<const std::string&>().empty())) {
    FailAt(line, "split wants a separator");
  }
  if (!most.is_discarded() && !most.is_number_integer()) FailAt(line, "split wants a whole number");
  int64_t left = most.is_discarded() || most.get<int64_t>() < 0 ? INT64_MAX : most.get<int64_t>();
  TemplateValue out = TemplateValue::array();
  const auto push = [&](std::string_view part) {
    if (out.size() >= kMostParts) FailAt(line, "split makes more than a million parts");
    out.push_back(std::string(part));
  };
  if (!blanks) {
    const auto& between = separator.get_ref<const std::string&>();
    for (size_t at; left-- > 0 && (at = text.find(between)) != text.npos;) {
      push(text.substr(0, at));
      text.remove_prefix(at + between.size());
    }
    push(text);
    return out;
  }
  const auto run = [&](size_t at, bool blank) {  // its end
    for (size_t next = at; at < text.size(); at = next) {
      if (IsWhiteSpace(NextCodePoint(text, next)) != blank) break;
    }
    return at;
  };
  for (size_t at = run(0, true); at < text.size(); at = run(at, true)) {
    const size_t end = left-- > 0 ? run(at, false) : text.size();
    push(text.substr(at, end - at));
    at = end;
  }
  return out;
}

// What a `for` would walk.
TemplateValue ItemsOf(const TemplateValue& value, const std::string& filter, int line) {
  if (value.is_array()) return value;
  TemplateValue out = TemplateValue::array();
  if (value.is_object()) {
    for (auto item = value.begin(); item != value.end(); ++item) out.push_back(item.key());
  } else if (value.is_string()) {
    if (CountItems(value) > kMostParts) FailAt(line, filter + " of more than a million characters");
    for (const char32_t c : ToCodePoints(value.get_ref<const std::string&>())) {
      std::string one;
      AppendUtf8(c, one);
      out.push_back(std::move(one));
    }
  } else if (!value.is_discarded()) {  // of what is undefined there are none
    FailAt(line, filter + " wants a list");
  }
  return out;
}

// "a.b.0" of an item; `otherwise`, which may be undefined, where it has none.
TemplateValue AttributeOf(const TemplateValue& item, std::string_view path,
                          const TemplateValue& otherwise, int line) {
  const TemplateValue* at = &item;
  while (true) {
    const std::string name(path.substr(0, path.find('.')));
    size_t index = 0;
    if (at->is_object()) {
      const auto found = at->find(name);
      at = found == at->end() ? nullptr : &*found;
    } else if (at->is_array() && !name.empty() && name.size() < 10 &&
               name.find_first_not_of("0123456789") == name.npos &&
               (index = std::stoul(name)) < at->size()) {
      at = &(*at)[index];
    } else {
      at = nullptr;
    }
    const bool last = path.size() == name.size();
    if (!at && !last && otherwise.is_discarded()) {
      FailAt(line, "looking into an undefined value for '" +
                       std::string(path.substr(name.size() + 1)) + "'");
    }
    if (!at) return otherwise;
    if (last) return *at;
    path.remove_prefix(name.size() + 1);
  }
}

std::string NameArgument(const TemplateValue& value, const std::string& filter, int line) {
  if (!value.is_string()) FailAt(line, filter + " wants a name");
  return value.get<std::string>();
}

// The arguments from `first` on.
Arguments Behind(const Arguments& all, size_t first) {
  Arguments rest;
  for (size_t i = first; i < all.positional.size(); ++i)
    rest.positional.push_back(all.positional[i]);
  rest.named = all.named;
  return rest;
}

// select(test, ...), reject, selectattr(attribute, test, ...), rejectattr; without a test, what is
// true.
TemplateValue Select(const std::string& filter, const TemplateValue& value,
                     const Arguments& arguments, int line) {
  const bool keeps = filter.starts_with("select"), by_attribute = filter.ends_with("attr");
  const size_t at = by_attribute ? 1 : 0;
  const std::string attribute =
      by_attribute ? NameArgument(arguments.Get(0, ""), filter, line) : std::string();
  const bool tests = arguments.positional.size() > at;
  const std::string test =
      tests ? NameArgument(arguments.positional[at], filter, line) : std::string();
  const Arguments rest = Behind(arguments, at + 1);
  TemplateValue out = TemplateValue::array();
  for (TemplateValue& item : ItemsOf(value, filter, line)) {
    const TemplateValue seen =
        by_attribute ? AttributeOf(item, attribute, Undefined(), line) : item;
    if ((tests ? ApplyTest(test, seen, rest, line) : IsTrue(seen)) == keeps) {
      out.push_back(std::move(item));
    }
  }
  return out;
}

// map(attribute=name, default=value), or map(filter, ...).
TemplateValue Map(const TemplateValue& value, const Arguments& arguments, int line) {
  TemplateValue out = TemplateValue::array();
  if (!arguments.positional.empty()) {
    const std::string filter = NameArgument(arguments.positional[0], "map", line);
    if (WalksItems(filter)) FailAt(line, "map of the filter '" + filter + "' is not supported");
    const Arguments rest = Behind(arguments, 1);
    size_t bytes = 0;
    for (const TemplateValue& item : ItemsOf(value, "map", line)) {
      out.push_back(ApplyFilter(filter, item, rest, line));
      if ((bytes += BytesOf(out.back())) > kMostBytes) FailAt(line, "map makes more than 64 MiB");
    }
    return out;
  }
  const std::string attribute = NameArgument(arguments.Get(0, "attribute"), "map", line);
  const TemplateValue otherwise = arguments.Get(1, "default");
  for (const TemplateValue& item : ItemsOf(value, "map", line)) {
    out.push_back(AttributeOf(item, attribute, otherwise, line));
  }
  return out;
}

std::string TextArgument(const Arguments& arguments, size_t index, const char* name, int line) {
  TemplateValue value = arguments.Get(index, name);
  return value.is_discarded() || value.is_null() ? "" : ToText(value, line);
}

}  // namespace

TemplateValue Undefined() {
  return TemplateValue(nlohmann::json::value_t::discarded);
}

TemplateValue Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return Undefined();
}

bool IsTrue(const TemplateValue& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

std::string ToText(const TemplateValue& value, int line) {
  if (value.is_discarded()) return "";
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_structured()) FailAt(line, "a list or dict as text is not supported; use tojson");
  return value.dump();
}

bool HasItems(const TemplateValue& value) {
  return value.is_structured() || value.is_string() || value.is_discarded();
}

size_t CountItems(const TemplateValue& value) {
  if (!value.is_string()) return value.is_structured() ? value.size() : 0;
  const auto& text = value.get_ref<const std::string&>();
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

TemplateValue ApplyFilter(const std::string& name, const TemplateValue& value,
                          const Arguments& arguments, int line) {
  if (name == "default" || name == "d") {
    bool use = value.is_discarded() || (IsTrue(arguments.Get(1, "boolean")) && !IsTrue(value));
    if (!use) return value;
    TemplateValue fallback = arguments.Get(0, "default_value");
    return fallback.is_discarded() ? TemplateValue("") : fallback;
  }
  if (name == "tojson") {
    if (value.is_discarded()) FailAt(line, "tojson of an undefined value");
    // transformers' first argument is ensure_ascii, which is false unless a template says so.
    if (!arguments.positional.empty()) FailAt(line, "tojson: name its arguments, as in indent=2");
    if (IsTrue(arguments.Get(0, "ensure_ascii"))) {
      FailAt(line, "tojson: ensure_ascii is not supported");
    }
    TemplateValue indent = arguments.Get(0, "indent");
    int width = indent.is_number_integer() ? static_cast<int>(indent.get<int64_t>()) : -1;
    if (width > 16) FailAt(line, "tojson: an indent over 16 is not supported");
    for (const auto& [key, unused] : arguments.named) {
      if (key != "indent" && key != "ensure_ascii") {
        FailAt(line, "tojson: the argument '" + key + "' is not supported");
      }
    }
    std::string out;
    Dump(value, width, 0, out);
    return out;
  }
  if (name == "length" || name == "count") return Length(value, line);
  if (name == "items") return Items(value, line);
  if (name == "join") return Join(value, TextArgument(arguments, 0, "d", line), line);
  if (name == "first" || name == "last") {
    if (value.is_discarded()) return value;
    if (!value.is_array()) FailAt(line, name + " wants a list");
    if (value.empty()) return Undefined();
    return name == "first" ? value.front() : value.back();
  }
  if (name == "map") return Map(value, arguments, line);
  if (WalksItems(name)) return Select(name, value, arguments, line);
  if (name == "list") return ItemsOf(value, name, line);
  if (name == "string") return ToText(value, line);
  if (name == "upper" || name == "lower") return ChangeCase(ToText(value, line), name == "upper");
  if (name != "trim") FailAt(line, "the filter '" + name + "' is not supported");
  const std::string text = ToText(value, line);
  return std::string(Strip(text, TextArgument(arguments, 0, "chars", line), true, true));
}

bool WalksItems(std::string_view filter) {
  return filter == "map" || filter == "select" || filter == "reject" || filter == "selectattr" ||
         filter == "rejectattr";
}

bool Equal(const TemplateValue& a, const TemplateValue& b) {
  if (a.is_discarded() || b.is_discarded()) return a.is_discarded() && b.is_discarded();
  return a == b;
}

bool Contains(const TemplateValue& item, const TemplateValue& whole, int line) {
  if (whole.is_string() && item.is_string()) {
    return whole.get_ref<const std::string&>().find(item.get_ref<const std::string&>()) !=
           std::string::npos;
  }
  if (whole.is_object()) return item.is_string() && whole.contains(item.get<std::string>());
  if (whole.is_discarded()) return false;
  if (!whole.is_array()) FailAt(line, "'in' wants a string, a list or a dict");
  return std::find(whole.begin(), whole.end(), item) != whole.end();
}

bool ApplyTest(const std::string& name, const TemplateValue& value, const Arguments& arguments,
               int line) {
  if (name == "equalto" || name == "eq" || name == "==") return Equal(value, arguments.Get(0, ""));
  if (name == "ne" || name == "!=") return !Equal(value, arguments.Get(0, ""));
  if (name == "in") return Contains(value, arguments.Get(0, "seq"), line);
  if (!arguments.positional.empty() || !arguments.named.empty()) {
    FailAt(line, "the test '" + name + "' with an argument is not supported");
  }
  if (name == "odd" || name == "even") {
    if (!value.is_number_integer()) FailAt(line, name + " wants a whole number");
    return (value.get<int64_t>() % 2 != 0) == (name == "odd");
  }
  if (name == "defined") return !value.is_discarded();
  if (name == "undefined") return value.is_discarded();
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "number") return value.is_number() || value.is_boolean();
  if (name == "mapping") return value.is_object();
  if (name == "boolean") return value.is_boolean();
  if (name == "true") return value.is_boolean() && value.get<bool>();
  if (name == "false") return value.is_boolean() && !value.get<bool>();
  if (name == "iterable" || name == "sequence") return HasItems(value);
  FailAt(line, "the test '" + name + "' is not supported");
}

TemplateValue CallMethod(const std::string& name, const TemplateValue& value,
                         const Arguments& arguments, int line) {
  if (value.is_object() && name == "items") return Items(value, line);
  if (value.is_object() && name == "get") {
    auto found = value.find(TextArgument(arguments, 0, "key", line));
    if (found != value.end()) return *found;
    TemplateValue fallback = arguments.Get(1, "default");
    return fallback.is_discarded() ? TemplateValue() : fallback;
  }
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (name == "split") return SplitText(text, arguments, line);
    std::string argument = TextArgument(arguments, 0, "", line);
    if (name == "strip") return std::string(Strip(text, argument, true, true));
    if (name == "lstrip") return std::string(Strip(text, argument, true, false));
    if (name == "rstrip") return std::string(Strip(text, argument, false, true));
    if (name == "upper" || name == "lower") return ChangeCase(text, name == "upper");
    if (name == "startswith") return text.starts_with(argument);
    if (name == "endswith") return text.ends_with(argument);
  }
  FailAt(line, "the method '" + name + "' is not supported here");
}

TemplateValue Slice(const TemplateValue& value, const TemplateValue& begin,
                    const TemplateValue& end, const TemplateValue& step, int line) {
  const auto given = [&](const TemplateValue& at) {
    if (at.is_discarded() || at.is_null()) return false;
    if (!at.is_number_integer()) FailAt(line, "a slice wants whole numbers");
    return true;
  };
  const auto count = static_cast<int64_t>(Length(value, line));
  // Steps over the end are all one.
  const int64_t by = given(step) ? std::clamp(step.get<int64_t>(), -count - 1, count + 1) : 1;
  if (by == 0) FailAt(line, "a slice wants a step that is not 0");
  const int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? count : count - 1;
  const auto bound = [&](const TemplateValue& at, int64_t otherwise) {
    if (!given(at)) return otherwise;
    const auto index = at.get<int64_t>();
    return std::clamp(index < 0 ? index + count : index, lowest, highest);
  };
  const int64_t first = bound(begin, by > 0 ? lowest : highest);
  const int64_t last = bound(end, by > 0 ? highest : lowest);
  const auto each = [&](const auto& take) {
    for (int64_t i = first; by > 0 ? i < last : i > last; i += by) take(i);
  };
  if (value.is_string()) {
    std::string out;
    const std::u32string chars = ToCodePoints(value.get_ref<const std::string&>());
    each([&](int64_t i) { AppendUtf8(chars[i], out); });
    return out;
  }
  if (!value.is_array()) FailAt(line, "only strings and lists can be sliced");
  TemplateValue out = TemplateValue::array();
  each([&](int64_t i) { out.push_back(value[i]); });
  return out;
}

}  // namespace lepton::tokenizer
