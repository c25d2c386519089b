#include "collectives/tuning_table.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "collectives/algorithms/algorithm.h"
#include "runtime/base/file.h"

namespace lepton::collectives {
namespace {

constexpr std::string_view kFirstLine = "lepton-collectives-table 1";
constexpr std::string_view kRemedy = "; lepton doctor --tune-collectives makes a new one";

bool IsAllReduce(std::string_view name) {
  for (const Algorithm& algorithm : Algorithms()) {
    if (algorithm.operation == Operation::kAllReduce && algorithm.name == name) return true;
  }
  return false;
}

Result<TuningTable::Rule> ParseRule(const std::string& line) {
  TuningTable::Rule rule;
  std::istringstream words(line);
  std::string bytes, more;
  if (!(words >> rule.transport >> rule.ranks >> bytes >> rule.algorithm) || (words >> more)) {
    return InvalidArgument("not \"transport ranks bytes algorithm\"");
  }
  if (rule.transport != "shm" && rule.transport != "tcp") {
    return InvalidArgument("transport '" + rule.transport + "' is not shm or tcp");
  }
  if (rule.ranks < 2) return InvalidArgument("a group of fewer than 2 ranks");
  if (bytes != "max") {
    const auto [end, error] =
        std::from_chars(bytes.data(), bytes.data() + bytes.size(), rule.up_to_bytes);
    if (error != std::errc() || end != bytes.data() + bytes.size()) {
      return InvalidArgument("'" + bytes + "' is neither a number of bytes nor max");
    }
  }
  if (!IsAllReduce(rule.algorithm)) {
    return InvalidArgument("this version has no all-reduce '" + rule.algorithm + "'");
  }
  return rule;
}

// Sizes ascend within a transport and number of ranks, up to "max".
Status CheckOrder(const std::vector<TuningTable::Rule>& rules) {
  for (size_t i = 0; i < rules.size(); ++i) {
    const bool next = i + 1 < rules.size() && rules[i + 1].transport == rules[i].transport &&
                      rules[i + 1].ranks == rules[i].ranks;
    const std::string where = rules[i].transport + " " + std::to_string(rules[i].ranks);
    if (next && rules[i + 1].up_to_bytes <= rules[i].up_to_bytes) {
      return InvalidArgument("sizes of " + where + " do not ascend");
    }
    if (!next && rules[i].up_to_bytes != TuningTable::kMax) {
      return InvalidArgument("sizes of " + where + " do not end with max");
    }
  }
  return Status::Ok();
}

}  // namespace

std::string TuningTable::ThisHost() {
  std::ifstream file("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    model = line.substr(std::min(line.size(), line.find(':') + 2));
    break;
  }
  return model + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
}

Result<TuningTable> TuningTable::Parse(std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::string line;
  if (!std::getline(lines, line) || line != kFirstLine) {
    return InvalidArgument("line 1: \"" + line.substr(0, 80) + "\" is not \"" +
                           std::string(kFirstLine) + "\": another version, or another file");
  }
  if (!std::getline(lines, line) || line.rfind("host ", 0) != 0) {
    return InvalidArgument("line 2: does not name the host");
  }
  TuningTable table;
  table.host_ = line.substr(5);
  if (table.host_ != ThisHost()) {
    return InvalidArgument("line 2: measured on \"" + table.host_.substr(0, 200) +
                           "\", but this is \"" + ThisHost() + "\"");
  }
  for (int number = 3; std::getline(lines, line); ++number) {
    Result<Rule> rule = ParseRule(line);
    if (!rule.ok()) return rule.status().WithContext("line " + std::to_string(number));
    table.rules_.push_back(*std::move(rule));
  }
  LEPTON_RETURN_IF_ERROR(CheckOrder(table.rules_));
  return table;
}

Result<TuningTable> TuningTable::Load(const std::string& path) {
  const auto text = ReadFile(path, 1 << 20);
  if (!text.ok()) return text.status();
  Result<TuningTable> table = Parse(*text);
  if (table.ok()) return table;
  return InvalidArgument(path + ": " + table.status().message() + std::string(kRemedy));
}

std::string TuningTable::DefaultPath() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (const std::string path = variable("LEPTON_COLLECTIVES_TABLE"); !path.empty()) return path;
  std::string cache = variable("XDG_CACHE_HOME");
  if (cache.empty() && !variable("HOME").empty()) cache = variable("HOME") + "/.cache";
  return cache.empty() ? "" : cache + "/lepton/collectives.table";
}

std::string TuningTable::ToText() const {
  std::string text = std::string(kFirstLine) + "\nhost " + host_ + "\n";
  for (const Rule& rule : rules_) {
    text += rule.transport + " " + std::to_string(rule.ranks) + " " +
            (rule.up_to_bytes == kMax ? "max" : std::to_string(rule.up_to_bytes)) + " " +
            rule.algorithm + "\n";
  }
  return text;
}

uint64_t TuningTable::digest() const {
  if (rules_.empty()) return 0;
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : ToText()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string_view TuningTable::AlgorithmFor(std::string_view transport, int ranks,
                                           size_t bytes) const {
  const Rule* best = nullptr;
  for (const Rule& rule : rules_) {
    if (rule.transport != transport || rule.ranks > ranks || bytes > rule.up_to_bytes) continue;
    // The first of a number of ranks that is large enough: sizes ascend.
    if (best == nullptr || rule.ranks > best->ranks) best = &rule;
  }
  return best == nullptr ? std::string_view() : best->algorithm;
}

}  // namespace lepton::collectives
