// Types are inferred while reading (column_builder.h), columns that turn out as text after numbers
// are filled by a second scan.
#include <unordered_map>

#include "storage/datasets/column_builder.h"
#include "storage/datasets/csv_scanner.h"
#include "storage/datasets/table.h"

namespace lepton::storage {
namespace {

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
    const std::string_view name = TrimCell(fields[i]);
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
      if (wanted(i)) columns[i].AddCell(fields[i]);
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
