// A table of named columns, as read from CSV and stored as safetensors (one tensor per column plus
// the schema as metadata). Threads: plain values.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

enum class ColumnType { kInteger, kReal, kText };  // text columns are dictionary-coded
std::string_view ColumnTypeName(ColumnType type);

struct Column {
  std::string name;
  ColumnType type = ColumnType::kReal;
  std::vector<double> values;             // kInteger and kReal; NaN where missing
  std::vector<int32_t> codes;             // kText; -1 where missing
  std::vector<std::string> dictionary;    // kText, in first-seen order
};

struct Table {
  std::vector<Column> columns;
  int64_t rows = 0;
  const Column* Find(std::string_view name) const;
};

// RFC 4180 with a header row: quoted fields, doubled quotes, newlines in quotes, CRLF, UTF-8 BOM.
// Empty, "NA", "NaN", "null" and "?" cells are missing. A column is integer if all its present
// cells are, else real, else text. Errors name the line: "line 17: 64 fields, but the header has
// 65"; also for an empty file, an unclosed quote, duplicate or empty column names.
struct CsvOptions {
  char delimiter = ',';
  int64_t max_rows = 100'000'000;
};
Result<Table> ReadCsv(std::string_view bytes, const CsvOptions& options = {});

// Per column: type, count, missing, min, max, mean, stddev, distinct (up to 1000), most frequent
// values (text and integer, up to 20). {"rows": n, "columns": [...]}
nlohmann::json Profile(const Table& table);

Result<std::string> TableToSafetensors(const Table& table);
Result<Table> TableFromSafetensors(std::string_view bytes);

// Disjoint row numbers that together are all rows; a permutation by seed (not by machine), stratified
// by `classes` if given (one class per row), so that small classes reach every part.
struct Split {
  std::vector<int64_t> train, validation, test;
};
Result<Split> SplitRows(int64_t rows, double train, double validation, uint64_t seed,
                        const std::vector<int32_t>* classes = nullptr);

}  // namespace lepton::storage
