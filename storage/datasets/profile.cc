#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "storage/datasets/table.h"

namespace lepton::storage {
namespace {

using nlohmann::json;

constexpr size_t kMaxDistinct = 1000;
constexpr size_t kTop = 20;

// Welford (1962): stable for a large mean and a small spread.
struct Moments {
  int64_t count = 0;
  double min = 0, max = 0, mean = 0, sum_of_squares = 0;

  void Add(double x) {
    ++count;
    min = count == 1 ? x : std::min(min, x);
    max = count == 1 ? x : std::max(max, x);
    const double delta = x - mean;
    mean += delta / static_cast<double>(count);
    sum_of_squares += delta * (x - mean);
  }
  double Stddev() const { return std::sqrt(sum_of_squares / static_cast<double>(count)); }
};

// Counts values until there are too many different ones.
class DistinctCounter {
 public:
  void Add(double x) {
    if (!exact_) return;
    ++counts_[x];  // -0 and 0 are equal and hash alike
    if (counts_.size() > kMaxDistinct) exact_ = false;
  }
  bool exact() const { return exact_; }
  size_t count() const { return std::min(counts_.size(), kMaxDistinct); }
  const std::unordered_map<double, int64_t>& counts() const { return counts_; }

 private:
  bool exact_ = true;
  std::unordered_map<double, int64_t> counts_;
};

// The start of a long text, cut between characters.
std::string Shown(const std::string& text) {
  constexpr size_t kShownBytes = 120;
  if (text.size() <= kShownBytes) return text;
  size_t end = kShownBytes;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

// The most frequent first; equals in order of value.
template <typename Value>
json Top(std::vector<std::pair<Value, int64_t>> counts) {
  std::sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  if (counts.size() > kTop) counts.resize(kTop);
  json out = json::array();
  for (const auto& [value, count] : counts) out.push_back({{"value", value}, {"count", count}});
  return out;
}

void ProfileNumbers(const Column& column, json& out) {
  Moments moments;
  DistinctCounter distinct;
  for (const double x : column.values) {
    if (std::isnan(x)) continue;
    moments.Add(x);
    distinct.Add(x);
  }
  out["count"] = moments.count;
  out["distinct"] = distinct.count();
  out["distinct_exact"] = distinct.exact();
  if (moments.count == 0) return;
  out["mean"] = moments.mean;
  out["stddev"] = moments.Stddev();
  if (column.type == ColumnType::kReal) {
    out["min"] = moments.min;
    out["max"] = moments.max;
    return;
  }
  out["min"] = static_cast<int64_t>(moments.min);
  out["max"] = static_cast<int64_t>(moments.max);
  if (!distinct.exact()) return;
  std::vector<std::pair<int64_t, int64_t>> counts;
  for (const auto& [value, count] : distinct.counts()) {
    counts.emplace_back(static_cast<int64_t>(value), count);
  }
  out["top"] = Top(std::move(counts));
}

void ProfileTexts(const Column& column, json& out) {
  std::vector<std::pair<std::string, int64_t>> counts;
  for (const std::string& text : column.dictionary) counts.emplace_back(text, 0);
  int64_t present = 0;
  for (const int32_t code : column.codes) {
    if (code < 0) continue;
    ++counts[code].second;
    ++present;
  }
  out["count"] = present;
  out["distinct"] = std::min(counts.size(), kMaxDistinct);
  out["distinct_exact"] = counts.size() <= kMaxDistinct;
  Moments bytes;
  for (const int32_t code : column.codes) {
    if (code >= 0) bytes.Add(static_cast<double>(column.dictionary[code].size()));
  }
  if (bytes.count > 0) {
    out["bytes"] = {{"min", bytes.min}, {"mean", bytes.mean}, {"max", bytes.max}};
  }
  out["top"] = Top(std::move(counts));
  for (json& value : out["top"]) value["value"] = Shown(value["value"].get<std::string>());
}

}  // namespace

json Profile(const Table& table) {
  json columns = json::array();
  for (const Column& column : table.columns) {
    json out = {{"name", column.name}, {"type", ColumnTypeName(column.type)}};
    if (column.type == ColumnType::kText) {
      ProfileTexts(column, out);
    } else {
      ProfileNumbers(column, out);
    }
    out["missing"] = table.rows - out["count"].get<int64_t>();
    columns.push_back(std::move(out));
  }
  return {{"rows", table.rows}, {"columns", std::move(columns)}};
}

}  // namespace lepton::storage
