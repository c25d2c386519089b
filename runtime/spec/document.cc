// YAML by events straight into JSON: duplicate keys, anchors, deep nesting and huge documents are
// refused with their line, and scalars follow YAML 1.2's core schema ("no" stays a text).
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <sstream>

#include "runtime/base/json_text.h"
#include "runtime/spec/job_spec.h"

namespace lepton::spec {
namespace {

using nlohmann::json;
constexpr size_t kMaxDocumentBytes = size_t{1} << 20;
constexpr size_t kMaxDepth = 32;

json ScalarToJson(const std::string& text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return nullptr;
  }
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  uint64_t natural = 0;
  if (const auto r = std::from_chars(begin, end, natural); r.ec == std::errc() && r.ptr == end) {
    return natural;
  }
  int64_t integer = 0;
  if (const auto r = std::from_chars(begin, end, integer); r.ec == std::errc() && r.ptr == end) {
    return integer;
  }
  double real = 0;
  const bool numeric = text.find_first_not_of("+-.0123456789eE") == std::string::npos;
  if (const auto r = std::from_chars(begin, end, real);
      numeric && r.ec == std::errc() && r.ptr == end) {
    return real;
  }
  return text;
}

class JsonBuilder final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) Fail(mark, "more than one document");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Add(mark, anchor, nullptr);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "anchors and aliases are not allowed; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // yaml-cpp tags quoted scalars "!" and plain ones "?".
    Add(mark, anchor, tag == "!" ? json(value) : ScalarToJson(value), value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, anchor, json::array());
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, anchor, json::object());
  }
  void OnMapEnd() override { Close(); }

  Status status() const { return status_; }
  json Take() { return std::move(result_); }

 private:
  struct Level {
    json value;
    std::string key;
    bool has_key = false;
  };

  void Fail(const YAML::Mark& mark, const std::string& what) {
    if (status_.ok()) {
      status_ = InvalidArgument("line " + std::to_string(mark.line + 1) + ": " + what);
    }
  }
  void Open(const YAML::Mark& mark, YAML::anchor_t anchor, json empty) {
    if (anchor != 0) OnAlias(mark, anchor);
    if (AwaitsKey()) Fail(mark, "a mapping's key must be a plain text");
    if (stack_.size() >= kMaxDepth) Fail(mark, "nested deeper than 32 levels");
    stack_.push_back({std::move(empty), {}, false});
  }
  void Close() {
    if (stack_.empty()) return;
    json value = std::move(stack_.back().value);
    stack_.pop_back();
    Put(std::move(value));
  }
  bool AwaitsKey() const {
    return !stack_.empty() && stack_.back().value.is_object() && !stack_.back().has_key;
  }
  void Add(const YAML::Mark& mark, YAML::anchor_t anchor, json value,
           const std::string& text = "") {
    if (anchor != 0) OnAlias(mark, anchor);
    if (!status_.ok()) return;
    if (AwaitsKey()) {
      Level& level = stack_.back();
      if (level.value.contains(text)) Fail(mark, "the field '" + text + "' is there twice");
      level.key = text;
      level.has_key = true;
      return;
    }
    Put(std::move(value));
  }
  void Put(json value) {
    if (!status_.ok()) return;
    if (stack_.empty()) {
      result_ = std::move(value);
      return;
    }
    Level& level = stack_.back();
    if (level.value.is_array()) {
      level.value.push_back(std::move(value));
    } else {
      level.value[level.key] = std::move(value);
      level.has_key = false;
    }
  }

  int documents_ = 0;
  std::vector<Level> stack_;
  json result_;
  Status status_;
};

Result<json> YamlToJson(std::string_view text) {
  JsonBuilder builder;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
      if (!builder.status().ok()) break;
    }
  } catch (const YAML::Exception& error) {
    if (!builder.status().ok()) return builder.status();
    return InvalidArgument("line " + std::to_string(error.mark.line + 1) +
                           ": not valid YAML: " + error.msg);
  }
  LEPTON_RETURN_IF_ERROR(builder.status());
  json document = builder.Take();
  // YAML takes any bytes, and its escapes may name half a character; JSON text must be UTF-8.
  try {
    (void)document.dump();
  } catch (const json::exception&) {
    return InvalidArgument("the document is not UTF-8");
  }
  return document;
}

}  // namespace

Result<json> DocumentToJson(std::string_view text) {
  if (text.size() > kMaxDocumentBytes) return InvalidArgument("the document is larger than 1 MiB");
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return InvalidArgument("the document is empty");
  if (text[first] != '{') return YamlToJson(text);
  // A YAML flow mapping also starts with '{': {kind: train, name: "x"}. What is neither was meant
  // for JSON, if its first field's name is quoted.
  Result<json> parsed = ParseJson(text, kMaxDepth);
  if (parsed.ok()) return parsed;
  Result<json> yaml = YamlToJson(text);
  const size_t name = text.find_first_not_of(" \t\r\n", first + 1);
  const bool quoted = name != std::string_view::npos && text[name] == '"';
  return yaml.ok() || !quoted ? yaml : parsed;
}

}  // namespace lepton::spec
