// Reads the JSON documents that storage keeps as objects (dataset, model and checkpoint manifests)
// as what they are: bytes from outside. Every document says what it is and which version of that:
//   {"format": "lepton.model", "version": 1, ...}
// Errors are sticky, so a reader asks for all fields and looks at status() once; what a failed
// field was to fill keeps its value. Unknown fields are ignored. Nothing throws. Threads: one
// caller at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

class ManifestReader {
 public:
  // kInvalidArgument when the text is not JSON or another kind of document; kFailedPrecondition,
  // naming both versions, when it is newer than `version`.
  static Result<ManifestReader> Parse(std::string_view text, std::string_view format, int version);

  // For fields that are newer than their document.
  bool Has(const char* key) const;
  // Required fields.
  void Read(const char* key, std::string* out);
  void Read(const char* key, int64_t* out);
  void Read(const char* key, uint64_t* out);
  void Read(const char* key, bool* out);
  void Read(const char* key, std::vector<std::string>* out);
  void Read(const char* key, std::vector<double>* out);
  void Read(const char* key, std::map<std::string, double>* out);
  // 64 hex digits; or, where it may be absent, "".
  void ReadDigest(const char* key, std::string* out, bool may_be_empty = false);
  // The field's JSON as text.
  void ReadJson(const char* key, std::string* out);
  // An inner object; it shares this reader's status.
  ManifestReader ReadObject(const char* key);
  // The objects of an array; they share this reader's status.
  std::vector<ManifestReader> ReadObjects(const char* key);
  // Marks the document as bad: "dataset manifest: columns[2].type: unknown".
  void Fail(const char* key, const std::string& what);

  const Status& status() const { return *status_; }

 private:
  ManifestReader(std::shared_ptr<const nlohmann::json> root, const nlohmann::json* at,
                 std::string path, std::shared_ptr<Status> status);
  const nlohmann::json* Field(const char* key);

  std::shared_ptr<const nlohmann::json> root_;
  const nlohmann::json* at_;
  std::string path_;
  std::shared_ptr<Status> status_;
};

// Numbers as JSON; what JSON has no number for as "NaN", "Infinity", "-Infinity".
nlohmann::json NumberToJson(double value);
nlohmann::json NumbersToJson(const std::map<std::string, double>& values);
nlohmann::json NumbersToJson(const std::vector<double>& values);
// The bytes to store; text that is not UTF-8 gets U+FFFD in its place.
std::string DumpManifest(const nlohmann::json& document);

}  // namespace lepton::storage
