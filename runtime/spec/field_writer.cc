
#include <cmath>
#include <list>

#include "runtime/base/config.h"
#include "runtime/base/json.h"
#include "runtime/spec/fields.h"

namespace lepton::spec {
namespace {

using nlohmann::json;

// What writing and the schema share: a stack of objects under construction.
class Builder : public FieldVisitor {
 public:
  Builder() { stack_.push_back({"", json::object()}); }
  json Take() { return std::move(stack_.front().value); }

 protected:
  struct Level {
    std::string name;
    json value;
  };
  json& top() { return stack_.back().value; }
  std::list<Level> stack_;
};

class Writer final : public Builder {
 public:
  void Number(std::string_view n, double& v, Range, std::string_view) override { Set(n, v); }
  void Integer(std::string_view n, int64_t& v, int64_t, int64_t, std::string_view) override {
    Set(n, v);
  }
  void Seed(std::string_view n, uint64_t& v, std::string_view) override { Set(n, v); }
  void Bool(std::string_view n, bool& v, std::string_view) override { Set(n, v); }
  void Text(std::string_view n, std::string& v, std::string_view) override { Set(n, v); }
  void Choice(std::string_view n, std::string& v, Choices, std::string_view) override { Set(n, v); }
  void Time(std::string_view n, Duration& v, Duration, Duration, std::string_view) override {
    Set(n, FormatDuration(v));
  }
  void OptionalTime(std::string_view n, std::optional<Duration>& v, std::string_view) override {
    if (v) Set(n, FormatDuration(*v));
  }
  void IntegerList(std::string_view n, std::vector<int64_t>& v, int64_t, int64_t, size_t,
                   std::string_view) override {
    Set(n, v);
  }
  void NumberList(std::string_view n, std::vector<double>& v, Range, size_t,
                  std::string_view) override {
    Set(n, v);
  }
  void TextMap(std::string_view n, std::map<std::string, std::string>& v,
               std::string_view) override {
    Set(n, v);
  }
  void Space(std::string_view n, std::vector<Dimension>& space, std::string_view) override {
    json out = json::object();
    for (const Dimension& dimension : space) out[dimension.path] = DimensionToJson(dimension);
    Set(n, std::move(out));
  }
  void BeginObject(std::string_view name, std::string_view, std::string_view) override {
    stack_.push_back({std::string(name), json::object()});
  }
  void EndObject() override { Close(); }
  size_t BeginList(std::string_view name, size_t size, std::string_view) override {
    stack_.push_back({std::string(name), json::array()});
    return size;
  }
  void BeginItem(size_t) override { stack_.push_back({"", json::object()}); }
  void EndItem() override {
    json item = std::move(top());
    stack_.pop_back();
    top().push_back(std::move(item));
  }
  void EndList() override { Close(); }

 private:
  void Set(std::string_view name, json value) { top()[std::string(name)] = std::move(value); }
  void Close() {
    Level level = std::move(stack_.back());
    stack_.pop_back();
    top()[level.name] = std::move(level.value);
  }
};

// top() is the "properties" of the object under construction.
class SchemaMaker final : public Builder {
 public:
  void Number(std::string_view n, double& v, Range r, std::string_view doc) override {
    json field = NumberType(r);
    field["default"] = v;
    Set(n, std::move(field), doc);
  }
  void Integer(std::string_view n, int64_t& v, int64_t min, int64_t max,
               std::string_view doc) override {
    Set(n, {{"type", "integer"}, {"default", v}, {"minimum", min}, {"maximum", max}}, doc);
  }
  void Seed(std::string_view n, uint64_t& v, std::string_view doc) override {
    Set(n, {{"type", "integer"}, {"default", v}, {"minimum", 0}}, doc);
  }
  void Bool(std::string_view n, bool& v, std::string_view doc) override {
    Set(n, {{"type", "boolean"}, {"default", v}}, doc);
  }
  void Text(std::string_view n, std::string& v, std::string_view doc) override {
    Set(n, {{"type", "string"}, {"default", v}, {"maxLength", 4096}}, doc);
  }
  void Choice(std::string_view n, std::string& v, Choices allowed, std::string_view doc) override {
    json names = json::array();
    for (const std::string_view name : allowed) names.push_back(std::string(name));
    json field = {{"type", "string"}, {"enum", std::move(names)}};
    if (!v.empty()) field["default"] = v;
    Set(n, std::move(field), doc);
  }
  void Time(std::string_view n, Duration& v, Duration, Duration, std::string_view doc) override {
    Set(n, {{"type", "string"}, {"pattern", kDurationPattern}, {"default", FormatDuration(v)}},
        doc);
  }
  void OptionalTime(std::string_view n, std::optional<Duration>&, std::string_view doc) override {
    Set(n, {{"type", "string"}, {"pattern", kDurationPattern}}, doc);
  }
  void IntegerList(std::string_view n, std::vector<int64_t>& v, int64_t min, int64_t max,
                   size_t max_size, std::string_view doc) override {
    Set(n,
        {{"type", "array"},
         {"items", {{"type", "integer"}, {"minimum", min}, {"maximum", max}}},
         {"maxItems", max_size},
         {"default", v}},
        doc);
  }
  void NumberList(std::string_view n, std::vector<double>& v, Range range, size_t max_size,
                  std::string_view doc) override {
    Set(n,
        {{"type", "array"}, {"items", NumberType(range)}, {"maxItems", max_size}, {"default", v}},
        doc);
  }
  void TextMap(std::string_view n, std::map<std::string, std::string>&,
               std::string_view doc) override {
    Set(n, {{"type", "object"}, {"additionalProperties", {{"type", "string"}}}}, doc);
  }
  void Space(std::string_view n, std::vector<Dimension>&, std::string_view doc) override {
    const json pair = {
        {"type", "array"}, {"items", {{"type", "number"}}}, {"minItems", 2}, {"maxItems", 2}};
    const json dimension = {{"type", "object"},
                            {"minProperties", 1},
                            {"maxProperties", 1},
                            {"additionalProperties", false},
                            {"properties",
                             {{"uniform", pair},
                              {"loguniform", pair},
                              {"int", pair},
                              {"logint", pair},
                              {"choice", {{"type", "array"}, {"minItems", 1}}}}}};
    Set(n, {{"type", "object"}, {"additionalProperties", dimension}}, doc);
  }
  void BeginObject(std::string_view name, std::string_view doc,
                   std::string_view shorthand) override {
    stack_.push_back({std::string(name), json::object()});
    docs_.push_back({std::string(doc), !shorthand.empty()});
  }
  void EndObject() override {
    Level level = std::move(stack_.back());
    stack_.pop_back();
    const Doc doc = docs_.back();
    docs_.pop_back();
    json object = Object(std::move(level.value));
    if (doc.shorthand) object = {{"oneOf", {{{"type", "string"}}, std::move(object)}}};
    Set(level.name, std::move(object), doc.text);
  }
  size_t BeginList(std::string_view name, size_t, std::string_view doc) override {
    stack_.push_back({std::string(name), json::object()});
    docs_.push_back({std::string(doc), false});
    return 1;
  }
  void BeginItem(size_t) override {}
  void EndItem() override {}
  void EndList() override {
    Level level = std::move(stack_.back());
    stack_.pop_back();
    const std::string doc = docs_.back().text;
    docs_.pop_back();
    Set(level.name, {{"type", "array"}, {"items", Object(std::move(level.value))}}, doc);
  }

  static json Object(json properties) {
    return {
        {"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  }

 private:
  static constexpr const char* kDurationPattern = R"(^([0-9.]+(us|ms|s|m|h|d))+$)";
  struct Doc {
    std::string text;
    bool shorthand;
  };
  static json NumberType(const Range& r) {
    json type = {{"type", "number"}};
    if (!std::isinf(r.min)) type[r.above_min ? "exclusiveMinimum" : "minimum"] = r.min;
    if (!std::isinf(r.max)) type[r.below_max ? "exclusiveMaximum" : "maximum"] = r.max;
    return type;
  }
  void Set(std::string_view name, json field, std::string_view doc) {
    field["description"] = std::string(doc);
    top()[std::string(name)] = std::move(field);
  }
  std::vector<Doc> docs_;
};

}  // namespace

json WriteFields(const std::function<void(FieldVisitor&)>& visit) {
  Writer writer;
  visit(writer);
  return writer.Take();
}

json SchemaOfFields(const std::function<void(FieldVisitor&)>& visit) {
  SchemaMaker maker;
  visit(maker);
  return SchemaMaker::Object(maker.Take());
}

}  // namespace lepton::spec
