// Settings from three sources, the weakest first: a YAML file, the environment, command-line flags.
// A key `http.port` is `http: {port: ...}` in the file, LEPTON_HTTP_PORT in the environment and
// --http-port as a flag.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton {

class Config {
 public:
  // `known` lists every key that may appear; anything else in the file is refused, naming the line.
  explicit Config(std::vector<std::string> known) : known_(std::move(known)) {}

  // kNotFound when the file is missing; kInvalidArgument with file and line otherwise.
  Status LoadFile(const std::filesystem::path& path);
  // LEPTON_<KEY> for every known key.
  void LoadEnvironment();
  // A flag given by the user.
  void Set(const std::string& key, const std::string& value);

  std::optional<std::string> Get(std::string_view key) const;
  std::string GetOr(std::string_view key, std::string_view fallback) const;
  // Each names the key, where its value came from and what is allowed.
  Result<int64_t> GetInt(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  Result<bool> GetBool(std::string_view key, bool fallback) const;
  Result<Duration> GetDuration(std::string_view key, Duration fallback) const;
  Result<uint64_t> GetBytes(std::string_view key, uint64_t fallback) const;

 private:
  struct Entry {
    std::string value;
    std::string source;  // "config.yaml:3", "LEPTON_HTTP_PORT", "--http-port"
  };
  std::vector<std::string> known_;
  std::map<std::string, Entry, std::less<>> entries_;
};

// "250ms", "2s", "5m", "2h", "1d", and sums such as "1h30m". No bare numbers, none negative.
Result<Duration> ParseDuration(std::string_view text);
// The shortest of the above that is exact to the millisecond: "1h30m".
std::string FormatDuration(Duration duration);
// "512", "64KiB", "10MB", "2GiB"
Result<int64_t> ParseBytes(std::string_view text);
// The shortest of the above, in powers of 1024, that is exact: "64MiB".
std::string FormatBytes(uint64_t bytes);

}  // namespace lepton
