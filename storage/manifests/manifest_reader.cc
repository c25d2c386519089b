#include "storage/manifests/manifest_reader.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/base/json_text.h"

namespace lepton::storage {
namespace {

using nlohmann::json;

std::optional<double> NumberFromJson(const json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

bool IsDigestText(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

json NumberToJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

json NumbersToJson(const std::map<std::string, double>& values) {
  json out = json::object();
  for (const auto& [name, value] : values) out[name] = NumberToJson(value);
  return out;
}

json NumbersToJson(const std::vector<double>& values) {
  json out = json::array();
  for (const double value : values) out.push_back(NumberToJson(value));
  return out;
}

std::string DumpManifest(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

ManifestReader::ManifestReader(std::shared_ptr<const json> root, const json* at, std::string path,
                               std::shared_ptr<Status> status)
    : root_(std::move(root)), at_(at), path_(std::move(path)), status_(std::move(status)) {}

Result<ManifestReader> ManifestReader::Parse(std::string_view text, std::string_view format,
                                             int version) {
  const std::string what(format);
  Result<json> parsed = ParseJson(text);
  if (!parsed.ok()) return parsed.status().WithContext(what + " manifest");
  auto root = std::make_shared<const json>(std::move(*parsed));
  if (!root->is_object()) {
    return InvalidArgument(what + " manifest: not a JSON object");
  }
  const auto found = root->find("format");
  if (found == root->end() || *found != what) {
    return InvalidArgument(what + " manifest: the document is of another kind");
  }
  const auto number = root->find("version");
  if (number == root->end() || !number->is_number_unsigned() || *number < 1u) {
    return InvalidArgument(what + " manifest: version: must be a positive integer");
  }
  if (number->get<uint64_t>() > static_cast<uint64_t>(version)) {
    return FailedPrecondition(what + " manifest: has version " + number->dump() +
                              ", but this program reads up to " + std::to_string(version) +
                              ": upgrade it");
  }
  const json* at = root.get();
  return ManifestReader(std::move(root), at, what + " manifest: ", std::make_shared<Status>());
}

void ManifestReader::Fail(const char* key, const std::string& what) {
  if (status_->ok()) *status_ = InvalidArgument(path_ + key + ": " + what);
}

const json* ManifestReader::Field(const char* key) {
  const auto it = at_->find(key);
  if (it != at_->end()) return &*it;
  Fail(key, "is missing");
  return nullptr;
}

void ManifestReader::Read(const char* key, bool* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_boolean()) return Fail(key, "must be true or false");
  *out = field->get<bool>();
}

void ManifestReader::Read(const char* key, std::string* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_string()) return Fail(key, "must be a text");
  *out = field->get_ref<const std::string&>();
}

void ManifestReader::Read(const char* key, int64_t* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_number_integer() ||
      (field->is_number_unsigned() && field->get<uint64_t>() > uint64_t{INT64_MAX})) {
    return Fail(key, "must be an integer");
  }
  *out = field->get<int64_t>();
}

void ManifestReader::Read(const char* key, uint64_t* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_number_unsigned()) return Fail(key, "must be an integer that is not negative");
  *out = field->get<uint64_t>();
}

void ManifestReader::Read(const char* key, std::vector<std::string>* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_array()) return Fail(key, "must be an array of texts");
  std::vector<std::string> texts;
  for (const json& item : *field) {
    if (!item.is_string()) return Fail(key, "must be an array of texts");
    texts.push_back(item.get_ref<const std::string&>());
  }
  *out = std::move(texts);
}

void ManifestReader::Read(const char* key, std::vector<double>* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_array()) return Fail(key, "must be an array of numbers");
  std::vector<double> numbers;
  for (const json& item : *field) {
    const std::optional<double> number = NumberFromJson(item);
    if (!number) return Fail(key, "must be an array of numbers");
    numbers.push_back(*number);
  }
  *out = std::move(numbers);
}

void ManifestReader::Read(const char* key, std::map<std::string, double>* out) {
  const json* field = Field(key);
  if (field == nullptr) return;
  if (!field->is_object()) return Fail(key, "must be an object of numbers");
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : field->items()) {
    const std::optional<double> number = NumberFromJson(value);
    if (!number) return Fail(key, "must be an object of numbers");
    numbers[name] = *number;
  }
  *out = std::move(numbers);
}

void ManifestReader::ReadDigest(const char* key, std::string* out, bool may_be_empty) {
  std::string text;
  Read(key, &text);
  if (!status_->ok()) return;
  if (!IsDigestText(text) && !(may_be_empty && text.empty())) {
    return Fail(key, "must be a digest of 64 hex digits");
  }
  *out = std::move(text);
}

void ManifestReader::ReadJson(const char* key, std::string* out) {
  if (const json* field = Field(key)) *out = DumpManifest(*field);
}

bool ManifestReader::Has(const char* key) const {
  return at_->contains(key);
}

ManifestReader ManifestReader::ReadObject(const char* key) {
  static const json kNothing = json::object();
  const json* field = Field(key);
  if (field != nullptr && !field->is_object()) Fail(key, "must be an object");
  const bool found = field != nullptr && field->is_object();
  return ManifestReader(root_, found ? field : &kNothing, path_ + key + ".", status_);
}

std::vector<ManifestReader> ManifestReader::ReadObjects(const char* key) {
  std::vector<ManifestReader> out;
  const json* field = Field(key);
  if (field == nullptr) return out;
  if (!field->is_array()) return Fail(key, "must be an array of objects"), out;
  for (const json& item : *field) {
    if (!item.is_object()) return Fail(key, "must be an array of objects"), out;
    out.push_back(ManifestReader(root_, &item,
                                 path_ + key + "[" + std::to_string(out.size()) + "].", status_));
  }
  return out;
}

}  // namespace lepton::storage
