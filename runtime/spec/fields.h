// One walk over a spec's fields serves reading, writing and the JSON Schema: Visit(FieldVisitor&,
// Spec&) names every field once, with its type, its limits and its meaning.
// Threads: one per visitor.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/spec/job_spec.h"

namespace lepton::spec {

struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;  // min itself is not allowed
  bool below_max = false;
};
using Choices = std::initializer_list<std::string_view>;

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void Number(std::string_view name, double& value, Range range, std::string_view doc) = 0;
  virtual void Integer(std::string_view name, int64_t& value, int64_t min, int64_t max,
                       std::string_view doc) = 0;
  virtual void Seed(std::string_view name, uint64_t& value, std::string_view doc) = 0;
  virtual void Bool(std::string_view name, bool& value, std::string_view doc) = 0;
  virtual void Text(std::string_view name, std::string& value, std::string_view doc) = 0;
  virtual void Choice(std::string_view name, std::string& value, Choices allowed,
                      std::string_view doc) = 0;
  virtual void Time(std::string_view name, Duration& value, Duration min, Duration max,
                    std::string_view doc) = 0;
  virtual void OptionalTime(std::string_view name, std::optional<Duration>& value,
                            std::string_view doc) = 0;
  virtual void IntegerList(std::string_view name, std::vector<int64_t>& values, int64_t min,
                           int64_t max, size_t max_size, std::string_view doc) = 0;
  virtual void NumberList(std::string_view name, std::vector<double>& values, Range range,
                          size_t max_size, std::string_view doc) = 0;
  virtual void TextMap(std::string_view name, std::map<std::string, std::string>& values,
                       std::string_view doc) = 0;
  virtual void Space(std::string_view name, std::vector<Dimension>& space,
                     std::string_view doc) = 0;
  // Between these, fields belong to the inner object. `shorthand`, if given, is the field that a
  // plain string in the object's place sets.
  virtual void BeginObject(std::string_view name, std::string_view doc,
                           std::string_view shorthand = {}) = 0;
  virtual void EndObject() = 0;
  // A list of objects: returns its size; then BeginItem/EndItem for each.
  virtual size_t BeginList(std::string_view name, size_t size, std::string_view doc) = 0;
  virtual void BeginItem(size_t index) = 0;
  virtual void EndItem() = 0;
  virtual void EndList() = 0;
  // There is a field of this name, but not with these values of other fields: `why`, as a refusal
  // says it. Nothing if a field of this name was visited.
  virtual void Elsewhere(std::string_view, std::string_view) {}

  // An int field by way of Integer.
  void Int(std::string_view name, int& value, int min, int max, std::string_view doc) {
    int64_t wide = value;
    Integer(name, wide, min, max, doc);
    value = static_cast<int>(wide);
  }
};

// The closest of `known` to `name` by edit distance, or "" when none is near.
std::string_view Nearest(std::string_view name, const std::vector<std::string>& known);

// A Dimension's JSON: {"loguniform": [1e-4, 1e-1]}.
nlohmann::json DimensionToJson(const Dimension& dimension);
Result<Dimension> DimensionFromJson(const std::string& path, const nlohmann::json& value);

// Reads `document` into the fields that `visit` names, refusing anything else.
Status ReadFields(const nlohmann::json& document, const std::function<void(FieldVisitor&)>& visit);
nlohmann::json WriteFields(const std::function<void(FieldVisitor&)>& visit);
// {"type": "object", "properties": ..., "additionalProperties": false}; defaults are the values
// that the visited fields have.
nlohmann::json SchemaOfFields(const std::function<void(FieldVisitor&)>& visit);

}  // namespace lepton::spec
