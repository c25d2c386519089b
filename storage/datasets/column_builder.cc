#include "storage/datasets/column_builder.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace lepton::storage {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kMaxExactInteger = int64_t{1} << 53;

bool IsMissing(std::string_view trimmed) {
  switch (trimmed.size()) {
    case 0:
      return true;
    case 1:
      return trimmed == "?";
    case 2:
      return trimmed == "NA";
    case 3:
      return trimmed == "NaN" || trimmed == "nan";
    case 4:
      return trimmed == "null";
    default:
      return false;
  }
}

enum class CellKind { kInteger, kReal, kText };

CellKind ParseCell(std::string_view trimmed, double* value) {
  if (trimmed.size() > 1 && trimmed[0] == '+' && trimmed[1] != '-') trimmed.remove_prefix(1);
  const char* const end = trimmed.data() + trimmed.size();
  int64_t integer = 0;
  const auto as_integer = std::from_chars(trimmed.data(), end, integer);
  if (as_integer.ec == std::errc() && as_integer.ptr == end && integer >= -kMaxExactInteger &&
      integer <= kMaxExactInteger) {
    *value = static_cast<double>(integer);
    return CellKind::kInteger;
  }
  const auto as_real = std::from_chars(trimmed.data(), end, *value);
  if (as_real.ec == std::errc() && as_real.ptr == end && std::isfinite(*value)) {
    return CellKind::kReal;
  }
  return CellKind::kText;
}

}  // namespace

std::string_view TrimCell(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

void ColumnBuilder::AddCell(std::string_view field) {
  const std::string_view trimmed = TrimCell(field);
  if (IsMissing(trimmed)) return AddMissing();
  double value = 0;
  const CellKind kind = text_ ? CellKind::kText : ParseCell(trimmed, &value);
  if (kind == CellKind::kText) return AddText(field);
  AddNumber(value, kind == CellKind::kInteger);
}

void ColumnBuilder::AddMissing() {
  ++rows_;
  if (text_) return column_.codes.push_back(-1);
  column_.values.push_back(kMissing);
}

void ColumnBuilder::AddNumber(double value, bool integer) {
  if (text_) {
    return AddText(NumberText(integer ? ColumnType::kInteger : ColumnType::kReal, value));
  }
  ++rows_;
  column_.values.push_back(value);
  if (!integer) real_ = true;
  numbers_ = true;
}

void ColumnBuilder::AddText(std::string_view text) {
  if (!text_) BecomeText();
  column_.codes.push_back(CodeOf(text));
  ++rows_;
}

void ColumnBuilder::StartSecondScan() {
  column_.codes.clear();
  column_.dictionary.clear();
  codes_.clear();
  rows_ = 0;
}

Column ColumnBuilder::Finish() && {
  column_.type = text_                ? ColumnType::kText
                 : real_ || !numbers_ ? ColumnType::kReal
                                      : ColumnType::kInteger;
  return std::move(column_);
}

void ColumnBuilder::BecomeText() {
  text_ = true;
  rescan_ = numbers_;
  column_.values = {};
  column_.codes.assign(static_cast<size_t>(rows_), -1);
}

int32_t ColumnBuilder::CodeOf(std::string_view text) {
  const auto it = codes_.find(text);
  if (it != codes_.end()) return it->second;
  const auto code = static_cast<int32_t>(column_.dictionary.size());
  column_.dictionary.emplace_back(text);
  codes_.emplace(text, code);
  return code;
}

}  // namespace lepton::storage
