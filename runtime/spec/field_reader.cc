
#include <algorithm>
#include <cmath>
#include <list>
#include <utility>

#include "runtime/base/config.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/spec/fields.h"

namespace lepton::spec {
namespace {

using nlohmann::json;

std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = std::string(Utf8Prefix(text, 57)) + "...";
  return text;
}

std::string Plain(double value) {
  return json(value).dump();
}

std::string Allowed(const Range& range) {
  const std::string low = (range.above_min ? "greater than " : "at least ") + Plain(range.min);
  const std::string high = (range.below_max ? "less than " : "at most ") + Plain(range.max);
  if (std::isinf(range.min)) return std::isinf(range.max) ? "any number" : high;
  return std::isinf(range.max) ? low : low + " and " + high;
}

bool Inside(double number, const Range& range) {
  return number >= range.min && number <= range.max && !(range.above_min && number == range.min) &&
         !(range.below_max && number == range.max);
}

class Reader final : public FieldVisitor {
 public:
  explicit Reader(const json& document) { Push(&document, ""); }

  Status Finish() {
    if (status_.ok() && !stack_.empty()) CheckUnknown();
    return status_;
  }

  void Number(std::string_view name, double& value, Range range, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_number()) return Wrong(name, *found, "a number");
    const double number = found->get<double>();
    if (!Inside(number, range)) return OutOfRange(name, *found, Allowed(range));
    value = number;
  }

  void Integer(std::string_view name, int64_t& value, int64_t min, int64_t max,
               std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    int64_t number = 0;
    if (!AsInteger(*found, &number)) return Wrong(name, *found, "a whole number");
    if (number < min || number > max) {
      return OutOfRange(name, *found, "from " + std::to_string(min) + " to " + std::to_string(max));
    }
    value = number;
  }

  void Seed(std::string_view name, uint64_t& value, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (found->is_number_unsigned()) {
      value = found->get<uint64_t>();
      return;
    }
    Wrong(name, *found, "a whole number of at least 0");
  }

  void Bool(std::string_view name, bool& value, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_boolean()) return Wrong(name, *found, "true or false");
    value = found->get<bool>();
  }

  void Text(std::string_view name, std::string& value, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_string()) return Wrong(name, *found, "a text");
    value = found->get<std::string>();
    if (value.size() > 4096) Fail(name, "is longer than 4096 characters");
  }

  void Choice(std::string_view name, std::string& value, Choices allowed,
              std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    const std::string text = found->is_string() ? found->get<std::string>() : "";
    if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
      std::string list;
      for (const std::string_view item : allowed)
        list += (list.empty() ? "" : ", ") + std::string(item);
      return Fail(name, Shown(*found) + " is not one of " + list);
    }
    value = text;
  }

  void Time(std::string_view name, Duration& value, Duration min, Duration max,
            std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_string()) return Wrong(name, *found, "a duration such as \"500ms\" or \"2h\"");
    const Result<Duration> parsed = ParseDuration(found->get<std::string>());
    if (!parsed.ok()) return Fail(name, parsed.status().message());
    if (*parsed < min || *parsed > max) {
      return OutOfRange(name, *found, "from " + FormatDuration(min) + " to " + FormatDuration(max));
    }
    value = *parsed;
  }

  void OptionalTime(std::string_view name, std::optional<Duration>& value,
                    std::string_view doc) override {
    const json* found = Peek(name);
    if (found == nullptr) return;
    Duration inner{};
    Time(name, inner, std::chrono::milliseconds(1), std::chrono::hours(24 * 365), doc);
    if (status_.ok()) value = inner;
  }

  void IntegerList(std::string_view name, std::vector<int64_t>& values, int64_t min, int64_t max,
                   size_t max_size, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_array()) return Wrong(name, *found, "a list of whole numbers");
    if (found->size() > max_size) {
      return Fail(name, "has " + std::to_string(found->size()) + " items, but at most " +
                            std::to_string(max_size) + " are allowed");
    }
    std::vector<int64_t> read;
    for (size_t i = 0; i < found->size(); ++i) {
      int64_t number = 0;
      const std::string item = std::string(name) + "." + std::to_string(i);
      if (!AsInteger((*found)[i], &number)) return Wrong(item, (*found)[i], "a whole number");
      if (number < min || number > max) {
        return OutOfRange(item, (*found)[i],
                          "from " + std::to_string(min) + " to " + std::to_string(max));
      }
      read.push_back(number);
    }
    values = std::move(read);
  }

  void NumberList(std::string_view name, std::vector<double>& values, Range range, size_t max_size,
                  std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_array()) return Wrong(name, *found, "a list of numbers");
    if (found->size() > max_size) {
      return Fail(name, "has " + std::to_string(found->size()) + " items, but at most " +
                            std::to_string(max_size) + " are allowed");
    }
    std::vector<double> read;
    for (size_t i = 0; i < found->size(); ++i) {
      const json& value = (*found)[i];
      const std::string item = std::string(name) + "." + std::to_string(i);
      if (!value.is_number()) return Wrong(item, value, "a number");
      const double number = value.get<double>();
      if (!Inside(number, range)) return OutOfRange(item, value, Allowed(range));
      read.push_back(number);
    }
    values = std::move(read);
  }

  void TextMap(std::string_view name, std::map<std::string, std::string>& values,
               std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_object()) return Wrong(name, *found, "a mapping of texts");
    if (found->size() > 64) return Fail(name, "has more than 64 entries");
    values.clear();
    for (const auto& [key, value] : found->items()) {
      if (!value.is_string()) return Wrong(std::string(name) + "." + key, value, "a text");
      values[key] = value.get<std::string>();
    }
  }

  void Space(std::string_view name, std::vector<Dimension>& space, std::string_view) override {
    const json* found = Take(name);
    if (found == nullptr) return;
    if (!found->is_object()) {
      return Wrong(name, *found, "a mapping such as {optimizer.lr: {loguniform: [1e-4, 1e-1]}}");
    }
    space.clear();
    for (const auto& [key, value] : found->items()) {
      Result<Dimension> dimension = DimensionFromJson(key, value);
      if (!dimension.ok()) {
        return Fail(std::string(name) + "." + key, dimension.status().message());
      }
      space.push_back(*std::move(dimension));
    }
  }

  void BeginObject(std::string_view name, std::string_view, std::string_view shorthand) override {
    static const json kEmpty = json::object();
    const json* found = Take(name);
    const std::string path = Path(name);
    if (found != nullptr && found->is_string() && !shorthand.empty()) {
      owned_.push_back(json{{std::string(shorthand), *found}});
      found = &owned_.back();
    }
    if (found != nullptr && !found->is_object()) {
      Wrong(name, *found, "a mapping of fields");
      found = nullptr;
    }
    Push(found != nullptr ? found : &kEmpty, path);
  }
  void EndObject() override { Pop(); }

  size_t BeginList(std::string_view name, size_t, std::string_view) override {
    static const json kEmpty = json::array();
    const json* found = Take(name);
    const std::string path = Path(name);
    if (found != nullptr && (!found->is_array() || found->size() > 64)) {
      Wrong(name, *found, "a list of at most 64 items");
      found = nullptr;
    }
    Push(found != nullptr ? found : &kEmpty, path);
    return stack_.back().object->size();
  }
  void BeginItem(size_t index) override {
    static const json kEmpty = json::object();
    const json& item = (*stack_.back().object)[index];
    const std::string path = Path(std::to_string(index));
    if (!item.is_object()) Wrong(std::to_string(index), item, "a mapping of fields");
    Push(item.is_object() ? &item : &kEmpty, path);
  }
  void EndItem() override { Pop(); }
  void EndList() override { stack_.pop_back(); }
  void Elsewhere(std::string_view name, std::string_view why) override {
    const std::vector<std::string>& known = stack_.back().known;
    if (std::find(known.begin(), known.end(), name) != known.end()) return;
    if (Peek(name) != nullptr) Fail(name, std::string(why));
  }

 private:
  struct Level {
    const json* object;
    std::string path;
    std::vector<std::string> known;
  };

  void Push(const json* object, std::string path) {
    stack_.push_back({object, std::move(path), {}});
  }
  void Pop() {
    if (status_.ok()) CheckUnknown();
    stack_.pop_back();
  }

  const json* Peek(std::string_view name) const {
    const json& object = *stack_.back().object;
    if (!object.is_object()) return nullptr;
    const auto it = object.find(std::string(name));
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
  const json* Take(std::string_view name) {
    stack_.back().known.emplace_back(name);
    return status_.ok() ? Peek(name) : nullptr;
  }

  static bool AsInteger(const json& value, int64_t* out) {
    if (value.is_number_integer()) {
      if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) return false;
      *out = value.get<int64_t>();
      return true;
    }
    if (!value.is_number_float()) return false;
    const double number = value.get<double>();
    if (number != std::floor(number) || std::abs(number) > 9e15) return false;
    *out = static_cast<int64_t>(number);
    return true;
  }

  std::string Path(std::string_view name) const {
    const std::string& prefix = stack_.back().path;
    return prefix.empty() ? std::string(name) : prefix + "." + std::string(name);
  }
  void Fail(std::string_view name, const std::string& what) {
    if (status_.ok()) status_ = InvalidArgument(Path(name) + ": " + what);
  }
  void Wrong(std::string_view name, const json& found, std::string_view wanted) {
    Fail(name, Shown(found) + " is not " + std::string(wanted));
  }
  void OutOfRange(std::string_view name, const json& found, const std::string& allowed) {
    Fail(name, Shown(found) + " is out of range: must be " + allowed);
  }

  void CheckUnknown() {
    const Level& level = stack_.back();
    if (!level.object->is_object()) return;
    for (const auto& [key, value] : level.object->items()) {
      if (std::find(level.known.begin(), level.known.end(), key) != level.known.end()) continue;
      const std::string_view near = Nearest(key, level.known);
      std::string known;
      for (const std::string& name : level.known) known += (known.empty() ? "" : ", ") + name;
      return Fail(key, near.empty() ? "unknown field; known are " + known
                                    : "unknown field; did you mean '" + std::string(near) + "'?");
    }
  }

  std::vector<Level> stack_;
  std::list<json> owned_;
  Status status_;
};

}  // namespace

std::string_view Nearest(std::string_view name, const std::vector<std::string>& known) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t cost = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, cost}));
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

Status ReadFields(const json& document, const std::function<void(FieldVisitor&)>& visit) {
  if (!document.is_object()) {
    return InvalidArgument("the document is " + Shown(document) +
                           ", but must be a mapping of fields");
  }
  Reader reader(document);
  visit(reader);
  return reader.Finish();
}

}  // namespace lepton::spec
