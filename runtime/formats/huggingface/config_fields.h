// Takes the options of a config.json, or of another file, one by one, with errors that name them,
// and refuses what is left. Errors are sticky; what a failed option was to fill keeps its value.
// Private to this folder. Threads: one caller.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/base/status.h"

namespace lepton::huggingface {

class ConfigFields {
 public:
  // `path`: "rope_scaling." for an object within. `file`: whose options they are. Borrows the
  // object.
  explicit ConfigFields(const nlohmann::json& object, std::string path = "",
                        std::string file = "config.json")
      : object_(object), path_(std::move(path)), file_(std::move(file)) {}

  // The option, or `value` as it is when it is absent or null.
  void Integer(const char* key, int64_t& value, int64_t min, int64_t max);
  void Number(const char* key, double& value, double min, double max);
  void Bool(const char* key, bool& value);
  void Text(const char* key, std::string& value);
  // An activation by its name elsewhere, as ours.
  void Activation(const char* key, std::string& value);
  void IntegerList(const char* key, std::vector<int64_t>& values, int64_t min, int64_t max,
                   size_t max_size);
  // As many numbers as `size`.
  void NumberList(const char* key, std::vector<double>& values, double min, double max,
                  size_t size);
  // An option that must be there and not null.
  void Require(const char* key);
  // Options that must have this value where they are there: models with another compute otherwise.
  void MustBe(const char* key, const nlohmann::json& wanted);
  // Options that do not change what a model computes.
  void PassOver(std::initializer_list<const char*> keys);
  // Whether the option is there as JSON's null: for those where that is not the same as absent.
  bool IsNull(const char* key) const;
  // The option itself, null when absent or JSON's null.
  const nlohmann::json* Take(const char* key);

  void Fail(const std::string& key, const std::string& what);
  void Add(const Status& status);                   // of an object within
  const Status& status() const { return status_; }  // the first error
  // The first error, else kInvalidArgument for an option that nobody took.
  Status Finish();

 private:
  const nlohmann::json& object_;
  const std::string path_, file_;
  std::set<std::string> taken_;
  Status status_;
};

// Takes what every config has whatever its family, and what does not change results.
void PassOverCommonOptions(ConfigFields& fields);

// Our name of an activation for theirs, and theirs for ours; empty when there is none.
std::string ActivationFrom(std::string_view theirs);
std::string ActivationTo(std::string_view ours);

}  // namespace lepton::huggingface
