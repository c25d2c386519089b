#include <cmath>

#include "runtime/base/json.h"
#include "runtime/spec/fields.h"

namespace lepton::spec {
namespace {
using nlohmann::json;
using Type = Dimension::Type;

struct Row {
  Type type;
  const char* name;
  bool logarithmic;
  bool whole;
};
constexpr Row kRows[] = {{Type::kUniform, "uniform", false, false},
                         {Type::kLogUniform, "loguniform", true, false},
                         {Type::kInt, "int", false, true},
                         {Type::kLogInt, "logint", true, true}};
}  // namespace

json DimensionToJson(const Dimension& dimension) {
  if (dimension.type == Type::kChoice) {
    json choices = json::array();
    for (const std::string& text : dimension.choices) choices.push_back(json::parse(text));
    return {{"choice", std::move(choices)}};
  }
  for (const Row& row : kRows) {
    if (row.type != dimension.type) continue;
    if (row.whole) return {{row.name, {std::llround(dimension.low), std::llround(dimension.high)}}};
    return {{row.name, {dimension.low, dimension.high}}};
  }
  return nullptr;
}

Result<Dimension> DimensionFromJson(const std::string& path, const json& value) {
  const Status bad =
      InvalidArgument(value.dump() +
                      " is not a dimension such as {uniform: [0, 1]}, {loguniform: [1e-4, 1e-1]}, "
                      "{int: [1, 8]}, {logint: [16, 1024]} or {choice: [a, b]}");
  if (!value.is_object() || value.size() != 1) return bad;
  const std::string name = value.begin().key();
  const json& body = value.begin().value();
  Dimension dimension;
  dimension.path = path;
  if (name == "choice") {
    if (!body.is_array() || body.empty() || body.size() > 1000) {
      return InvalidArgument("choice must list 1 to 1000 values");
    }
    dimension.type = Type::kChoice;
    for (const json& item : body) dimension.choices.push_back(item.dump());
    return dimension;
  }
  for (const Row& row : kRows) {
    if (name != row.name) continue;
    if (!body.is_array() || body.size() != 2 || !body[0].is_number() || !body[1].is_number()) {
      return InvalidArgument(name + " needs two numbers, [low, high]");
    }
    dimension.type = row.type;
    dimension.low = body[0].get<double>();
    dimension.high = body[1].get<double>();
    if (!(dimension.low <= dimension.high)) return InvalidArgument(name + ": low is above high");
    if (row.logarithmic && dimension.low <= 0) {
      return InvalidArgument(name + ": low must be greater than 0");
    }
    if (row.whole && (dimension.low != std::floor(dimension.low) ||
                      dimension.high != std::floor(dimension.high))) {
      return InvalidArgument(name + " needs whole numbers");
    }
    return dimension;
  }
  return bad;
}

}  // namespace lepton::spec
