// Strict reading of tokenizer.json: each field by its JSON path, and an error for every field that
// nobody asked for. Internal to this folder's readers: it throws FormatError, which ReadDefinition
// turns into a Status.
#pragma once

#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

struct FormatError {
  std::string message;
};

class Fields {
 public:
  using Json = nlohmann::json;
  // `value` must outlive the reader and be an object.
  Fields(const Json& value, std::string path) : value_(value), path_(std::move(path)) {
    if (!value.is_object()) Fail("must be an object");
  }

  const std::string& path() const { return path_; }
  std::string At(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }
  [[noreturn]] void Fail(std::string_view what) const {
    throw FormatError{path_ + ": " + std::string(what)};
  }
  [[noreturn]] void Fail(std::string_view key, std::string_view what) const {
    throw FormatError{At(key) + ": " + std::string(what)};
  }
  // The value or the error with the field's name.
  template <typename T>
  T Unwrap(std::string_view key, Result<T> result) const {
    if (!result.ok()) Fail(key, result.status().message());
    return std::move(result).value();
  }

  // Fails for a field that is not in `known`.
  void Only(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, unused] : value_.items()) {
      bool found = false;
      for (std::string_view one : known) found = found || one == key;
      if (!found) Fail(key.substr(0, 64), "is not supported");
    }
  }

  // Null when absent or null.
  const Json* Get(std::string_view key) const {
    auto found = value_.find(key);
    return found == value_.end() || found->is_null() ? nullptr : &*found;
  }
  const Json& Need(std::string_view key) const {
    const Json* found = Get(key);
    if (!found) Fail(key, "is missing");
    return *found;
  }
  bool Bool(std::string_view key, bool fallback) const {
    const Json* found = Get(key);
    if (!found) return fallback;
    if (!found->is_boolean()) Fail(key, "must be true or false");
    return found->get<bool>();
  }
  const std::string& Text(std::string_view key) const {
    const Json& found = Need(key);
    if (!found.is_string()) Fail(key, "must be a string");
    return found.get_ref<const std::string&>();
  }
  std::string Text(std::string_view key, std::string_view fallback) const {
    return Get(key) ? Text(key) : std::string(fallback);
  }
  uint32_t Uint(std::string_view key) const { return ToUint(Need(key), At(key)); }
  uint32_t Uint(std::string_view key, uint32_t fallback) const {
    return Get(key) ? Uint(key) : fallback;
  }
  const Json& Array(std::string_view key) const {
    const Json& found = Need(key);
    if (!found.is_array()) Fail(key, "must be an array");
    return found;
  }
  static uint32_t ToUint(const Json& value, const std::string& path) {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
      throw FormatError{path + ": must be a whole number from 0 to 2147483647"};
    }
    return value.get<uint32_t>();
  }

 private:
  const Json& value_;
  std::string path_;
};

}  // namespace lepton::tokenizer
