// A table of named columns, as read from CSV or JSON Lines and stored as safetensors (one tensor
// per column plus the schema as metadata). Threads: plain values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

enum class ColumnType { kInteger, kReal, kText };  // text columns are dictionary-coded
// "integer", "real", "text"
std::string_view ColumnTypeName(ColumnType type);
// False for an unknown name.
bool ColumnTypeFromName(std::string_view name, ColumnType* type);

struct Column {
  std::string name;
  ColumnType type = ColumnType::kReal;
  std::vector<double> values;           // kInteger and kReal; NaN where missing
  std::vector<int32_t> codes;           // kText; -1 where missing
  std::vector<std::string> dictionary;  // kText, in first-seen order

  bool Missing(int64_t row) const;
  // The cell as text, the same for equal values: "3" (integer), "0.25" (real, the shortest that
  // reads back the same), the text itself; "" where missing. What a class is called.
  std::string CellText(int64_t row) const;
};

// The text of a number in a column of type `type`, as CellText gives it.
std::string NumberText(ColumnType type, double value);

struct Table {
  std::vector<Column> columns;
  int64_t rows = 0;
  const Column* Find(std::string_view name) const;
};

// RFC 4180 with a header row: quoted fields, doubled quotes, newlines in quotes, CRLF, UTF-8 BOM.
// Empty, "NA", "NaN", "nan", "null" and "?" cells are missing. A column is integer if all its
// present cells are (within +-2^53), real if they are finite numbers or all are missing, else text.
// Spaces around numbers, column names and missing-value marks do not count; those of texts do.
// Lines that are empty are skipped, except in a table of one column, where they are missing cells.
// Errors name the line, counted as an editor does: "line 17: 64 fields, but the header has 65";
// also for an empty file, no rows, an unclosed quote (the line where it opens), a quote inside an
// unquoted field, duplicate or empty column names, bytes that are not UTF-8.
struct CsvOptions {
  char delimiter = ',';
  int64_t max_rows = 100'000'000;
  int64_t max_columns = 100'000;
  int64_t max_field_bytes = 1 << 20;
  // Of JSON Lines, where a line need not hold all keys: so many cells are taken beyond 4 for each
  // byte of the file. (In CSV a cell takes a byte at least.)
  int64_t spare_cells = int64_t{64} << 20;
};
Result<Table> ReadCsv(std::string_view bytes, const CsvOptions& options = {});
// JSON Lines: one object a line, a column a key, in the order in which keys come first. A key that
// a line lacks, and null, is a missing cell; true is 1 and false 0; a text is a text even if it
// looks like a number; a column with both holds texts, where integers keep all their digits. A list
// of {role, ...}, and an object that has one under "messages", is the text of its JSON. Empty lines
// are skipped. Errors name the line and the key: for other objects and lists, a key given twice,
// what is not JSON or not UTF-8. `options.delimiter` does not matter.
Result<Table> ReadJsonl(std::string_view bytes, const CsvOptions& options = {});

// {"rows": n, "columns": [...]}, per column: name, type, count (present cells), missing; of numbers
// min, max, mean, stddev (of the population); distinct, counted up to 1,000 ("distinct_exact":
// false if there are more); of texts, and of integers with exact distinct, the "top" 20 values by
// count (the start of long texts); of texts the least, mean and most "bytes".
nlohmann::json Profile(const Table& table);

Result<std::string> TableToSafetensors(const Table& table);
// kInvalidArgument for anything that is not such a table.
Result<Table> TableFromSafetensors(std::string_view bytes);

// Disjoint row numbers that together are all rows; a permutation by seed (not by machine),
// stratified by `classes` if given (one class per row): each class is spread by the shares, a class
// of as many rows as there are parts reaches each of them, and a smaller one reaches `train` first.
// The test share is what the other two leave. No part with a share is empty. kInvalidArgument:
// shares that are negative or above 1 together, fewer rows than parts.
struct Split {
  std::vector<int64_t> train, validation, test;
};
Result<Split> SplitRows(int64_t rows, double train, double validation, uint64_t seed,
                        const std::vector<int32_t>* classes = nullptr);

}  // namespace lepton::storage
