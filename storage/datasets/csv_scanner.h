// Splits CSV bytes into rows of fields, in one pass and without copying fields that need no
// unescaping. Knows quoting and lines, nothing of types.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "storage/datasets/table.h"

namespace lepton::storage {

class CsvScanner {
 public:
  // `bytes` must outlive the scanner.
  CsvScanner(std::string_view bytes, const CsvOptions& options);

  // The next row's fields, valid until the next call; false at the end. An empty line is a row of
  // one empty field.
  Result<bool> Next(std::vector<std::string_view>* fields);
  // The line on which the row that Next gave began; from 1.
  int64_t line() const { return row_line_; }

 private:
  enum class After { kField, kRow };
  Status ReadQuoted(std::string_view* field);
  Status ReadPlain(std::string_view* field);
  Result<After> ReadSeparator();
  Status Error(int64_t line, const std::string& what) const;

  const char* at_;
  const char* const end_;
  const CsvOptions options_;
  int64_t line_ = 1;
  int64_t row_line_ = 1;
  std::deque<std::string> unescaped_;  // fields of this row that had doubled quotes
};

// OK, or the line of the first byte that is not UTF-8 or is zero.
Status CheckUtf8(std::string_view bytes);

}  // namespace lepton::storage
