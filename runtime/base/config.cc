#include "runtime/base/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <limits>

#include "runtime/base/file.h"

namespace lepton {
namespace {

std::string EnvironmentName(std::string_view key) {
  std::string name = "LEPTON_";
  for (const char c : key) {
    name +=
        c == '.' || c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string FlagName(std::string_view key) {
  std::string name = "--" + std::string(key);
  for (char& c : name) c = c == '.' || c == '_' ? '-' : c;
  return name;
}

}  // namespace

Status Config::LoadFile(const std::filesystem::path& path) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  Status status;
  const std::function<void(const YAML::Node&, const std::string&)> walk =
      [&](const YAML::Node& node, const std::string& prefix) {
        if (!status.ok()) return;
        const std::string where =
            path.filename().string() + ":" + std::to_string(node.Mark().line + 1);
        if (node.IsMap()) {
          for (const auto& item : node) {
            const std::string key = item.first.as<std::string>();
            walk(item.second, prefix.empty() ? key : prefix + "." + key);
          }
        } else if (node.IsScalar()) {
          if (std::find(known_.begin(), known_.end(), prefix) == known_.end()) {
            status = InvalidArgument(where + ": unknown setting '" + prefix + "'");
            return;
          }
          entries_[prefix] = {node.Scalar(), where};
        } else if (!node.IsNull()) {
          status = InvalidArgument(where + ": '" + prefix + "' must be a single value");
        }
      };
  try {
    walk(YAML::Load(text), "");
  } catch (const YAML::Exception& error) {
    return InvalidArgument(path.string() + ":" + std::to_string(error.mark.line + 1) + ": " +
                           error.msg);
  }
  return status;
}

void Config::LoadEnvironment() {
  for (const std::string& key : known_) {
    const std::string name = EnvironmentName(key);
    if (const char* value = std::getenv(name.c_str()); value != nullptr && *value != '\0') {
      entries_[key] = {value, name};
    }
  }
}

void Config::Set(const std::string& key, const std::string& value) {
  entries_[key] = {value, FlagName(key)};
}

std::optional<std::string> Config::Get(std::string_view key) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return std::nullopt;
  return it->second.value;
}

std::string Config::GetOr(std::string_view key, std::string_view fallback) const {
  return Get(key).value_or(std::string(fallback));
}

Result<int64_t> Config::GetInt(std::string_view key, int64_t fallback, int64_t min,
                               int64_t max) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  const std::string& text = it->second.value;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return InvalidArgument(it->second.source + ": " + std::string(key) + " is '" + text +
                           "', but must be a whole number from " + std::to_string(min) + " to " +
                           std::to_string(max));
  }
  return value;
}

Result<bool> Config::GetBool(std::string_view key, bool fallback) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  const std::string& text = it->second.value;
  if (text == "true" || text == "yes" || text == "on" || text == "1") return true;
  if (text == "false" || text == "no" || text == "off" || text == "0") return false;
  return InvalidArgument(it->second.source + ": " + std::string(key) + " is '" + text +
                         "', but must be true or false");
}

Result<Duration> Config::GetDuration(std::string_view key, Duration fallback) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  Result<Duration> parsed = ParseDuration(it->second.value);
  if (!parsed.ok()) return parsed.status().WithContext(it->second.source + ": " + std::string(key));
  return parsed;
}

Result<uint64_t> Config::GetBytes(std::string_view key, uint64_t fallback) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  const Result<int64_t> parsed = ParseBytes(it->second.value);
  if (!parsed.ok()) return parsed.status().WithContext(it->second.source + ": " + std::string(key));
  return static_cast<uint64_t>(*parsed);
}

Result<Duration> ParseDuration(std::string_view text) {
  const auto bad = [&] {
    return InvalidArgument("'" + std::string(text) +
                           "' is not a duration such as 250ms, 2s, 5m, 2h or 1h30m");
  };
  std::string_view rest = text;
  double total_ns = 0;
  if (rest.empty()) return bad();
  if (rest == "0") return Duration::zero();  // the same in any unit
  while (!rest.empty()) {
    double value = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (error != std::errc() || !(value >= 0)) return bad();
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const size_t unit_size = std::min(rest.find_first_of("0123456789."), rest.size());
    const std::string_view unit = rest.substr(0, unit_size);
    double scale = 0;
    if (unit == "us") scale = 1e3;
    if (unit == "ms") scale = 1e6;
    if (unit == "s") scale = 1e9;
    if (unit == "m") scale = 60e9;
    if (unit == "h") scale = 3600e9;
    if (unit == "d") scale = 86400e9;
    if (scale == 0) return bad();
    total_ns += value * scale;
    rest.remove_prefix(unit_size);
  }
  if (total_ns > 9e18) return bad();
  return Duration(static_cast<int64_t>(total_ns + 0.5));
}

std::string FormatDuration(Duration duration) {
  int64_t ns = duration.count();
  if (ns <= 0) return "0s";
  std::string out;
  const auto part = [&](int64_t size, const char* unit) {
    if (ns >= size) out += std::to_string(ns / size) + unit;
    ns %= size;
  };
  part(86'400'000'000'000, "d");
  part(3'600'000'000'000, "h");
  part(60'000'000'000, "m");
  part(1'000'000'000, "s");
  part(1'000'000, "ms");
  if (ns % 1000 == 0) {
    part(1'000, "us");
  } else {
    // There is no smaller unit: "1.5us".
    std::string fraction = std::to_string(1000 + ns % 1000).substr(1);
    while (fraction.back() == '0') fraction.pop_back();
    out += std::to_string(ns / 1000) + "." + fraction + "us";
  }
  return out;
}

Result<int64_t> ParseBytes(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  constexpr struct {
    std::string_view name;
    double scale;
  } kUnits[] = {{"", 1},
                {"B", 1},
                {"KB", 1e3},
                {"MB", 1e6},
                {"GB", 1e9},
                {"TB", 1e12},
                {"KiB", 1024.0},
                {"MiB", 1048576.0},
                {"GiB", 1073741824.0},
                {"TiB", 1099511627776.0}};
  for (const auto& known : kUnits) {
    if (error == std::errc() && value >= 0 && unit == known.name && value * known.scale < 9e18) {
      return static_cast<int64_t>(value * known.scale);
    }
  }
  return InvalidArgument("'" + std::string(text) + "' is not a size such as 512, 64KiB or 10MB");
}

std::string FormatBytes(uint64_t bytes) {
  const char* const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes > 0 && bytes % 1024 == 0 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + units[unit];
}

}  // namespace lepton
