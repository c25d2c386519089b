// Types are inferred while reading: a column starts as numbers, and the first cell that is none
// makes it text. If cells before that were present, their texts are gone; such columns (rare) are
// filled by a second scan.
#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "storage/datasets/csv_scanner.h"
#include "storage/datasets/table.h"

namespace lepton::storage {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kMaxExactInteger = int64_t{1} << 53;

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

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

CellKind ParseNumber(std::string_view trimmed, double* value) {
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

struct TransparentHash : std::hash<std::string_view> {
  using is_transparent = void;
};

class ColumnBuilder {
 public:
  explicit ColumnBuilder(std::string name) { column_.name = std::move(name); }

  void Add(std::string_view field) {
    const std::string_view trimmed = Trim(field);
    if (IsMissing(trimmed)) {
      ++rows_;
      if (text_) return column_.codes.push_back(-1);
      return column_.values.push_back(kMissing);
    }
    double value = 0;
    const CellKind kind = text_ ? CellKind::kText : ParseNumber(trimmed, &value);
    if (kind == CellKind::kText) {
      if (!text_) BecomeText();
      column_.codes.push_back(CodeOf(field));
    } else {
      column_.values.push_back(value);
      if (kind == CellKind::kReal) real_ = true;
      numbers_ = true;
    }
    ++rows_;
  }

  bool needs_second_scan() const { return rescan_; }
  void StartSecondScan() {
    column_.codes.clear();
    column_.dictionary.clear();
    codes_.clear();
    rows_ = 0;
  }

  Column Finish() && {
    column_.type = text_                ? ColumnType::kText
                   : real_ || !numbers_ ? ColumnType::kReal
                                        : ColumnType::kInteger;
    return std::move(column_);
  }

 private:
  void BecomeText() {
    text_ = true;
    rescan_ = numbers_;
    column_.values = {};
    column_.codes.assign(static_cast<size_t>(rows_), -1);
  }

  int32_t CodeOf(std::string_view text) {
    const auto it = codes_.find(text);
    if (it != codes_.end()) return it->second;
    const auto code = static_cast<int32_t>(column_.dictionary.size());
    column_.dictionary.emplace_back(text);
    codes_.emplace(text, code);
    return code;
  }

  Column column_;
  int64_t rows_ = 0;
  bool text_ = false, real_ = false, numbers_ = false, rescan_ = false;
  std::unordered_map<std::string, int32_t, TransparentHash, std::equal_to<>> codes_;
};

Result<std::vector<ColumnBuilder>> ReadHeader(CsvScanner& scanner) {
  std::vector<std::string_view> fields;
  LEPTON_ASSIGN_OR_RETURN(const bool any, scanner.Next(&fields));
  if (!any)
    return InvalidArgument("the file is empty: a header row with column names must be first");
  const auto error = [&](const std::string& what) {
    return InvalidArgument("line " + std::to_string(scanner.line()) + ": " + what);
  };
  std::unordered_map<std::string_view, size_t> seen;
  std::vector<ColumnBuilder> columns;
  columns.reserve(fields.size());
  for (size_t i = 0; i < fields.size(); ++i) {
    const std::string_view name = Trim(fields[i]);
    if (name.empty()) return error("column " + std::to_string(i + 1) + " has no name");
    const auto [first, fresh] = seen.emplace(name, i);
    if (!fresh) {
      return error("column " + std::to_string(i + 1) + " repeats the name \"" + std::string(name) +
                   "\" of column " + std::to_string(first->second + 1));
    }
    columns.emplace_back(std::string(name));
  }
  return columns;
}

// Feeds every row's cells to the builders for which `wanted` holds. Returns the number of rows.
template <typename Wanted>
Result<int64_t> ReadRows(CsvScanner& scanner, const CsvOptions& options,
                         std::vector<ColumnBuilder>& columns, const Wanted& wanted) {
  std::vector<std::string_view> fields;
  int64_t rows = 0;
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const bool any, scanner.Next(&fields));
    if (!any) return rows;
    if (fields.size() == 1 && fields[0].empty() && columns.size() > 1) continue;
    if (fields.size() != columns.size()) {
      return InvalidArgument("line " + std::to_string(scanner.line()) + ": " +
                             std::to_string(fields.size()) + " fields, but the header has " +
                             std::to_string(columns.size()));
    }
    if (++rows > options.max_rows) {
      return InvalidArgument("line " + std::to_string(scanner.line()) + ": more than " +
                             std::to_string(options.max_rows) + " rows");
    }
    for (size_t i = 0; i < fields.size(); ++i) {
      if (wanted(i)) columns[i].Add(fields[i]);
    }
  }
}

}  // namespace

Result<Table> ReadCsv(std::string_view bytes, const CsvOptions& options) {
  LEPTON_RETURN_IF_ERROR(CheckUtf8(bytes));
  CsvScanner scanner(bytes, options);
  LEPTON_ASSIGN_OR_RETURN(std::vector<ColumnBuilder> columns, ReadHeader(scanner));
  Table table;
  LEPTON_ASSIGN_OR_RETURN(table.rows,
                          ReadRows(scanner, options, columns, [](size_t) { return true; }));
  if (table.rows == 0) return InvalidArgument("line 1: a header, but no rows after it");

  std::vector<bool> again(columns.size());
  bool any_again = false;
  for (size_t i = 0; i < columns.size(); ++i) {
    again[i] = columns[i].needs_second_scan();
    if (again[i]) columns[i].StartSecondScan();
    any_again |= again[i];
  }
  if (any_again) {
    CsvScanner second(bytes, options);
    std::vector<std::string_view> header;
    LEPTON_RETURN_IF_ERROR(second.Next(&header).status());
    LEPTON_RETURN_IF_ERROR(
        ReadRows(second, options, columns, [&](size_t i) { return again[i]; }).status());
  }
  for (ColumnBuilder& column : columns) table.columns.push_back(std::move(column).Finish());
  return table;
}

}  // namespace lepton::storage
