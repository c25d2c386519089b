// Fills one column of a table cell by cell while its type is still open: it starts as numbers, and
// the first text makes it text. If numbers came before that, how they were written is gone; such
// columns (rare) ask to be filled once more from the start.
// Threads: one caller.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "storage/datasets/table.h"

namespace lepton::storage {

// Without the spaces and tabs around it.
std::string_view TrimCell(std::string_view text);

class ColumnBuilder {
 public:
  explicit ColumnBuilder(std::string name) { column_.name = std::move(name); }

  const std::string& name() const { return column_.name; }
  int64_t rows() const { return rows_; }
  bool holds_text() const { return text_; }

  // A cell of a format without types, such as CSV: a missing mark, a number, else a text.
  void AddCell(std::string_view field);
  void AddMissing();
  // As text, a number is written as NumberText does.
  void AddNumber(double value, bool integer);
  void AddText(std::string_view text);

  // After the last row: fill in all cells again, from the first row on.
  bool needs_second_scan() const { return rescan_; }
  void StartSecondScan();

  Column Finish() &&;

 private:
  struct TransparentHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  void BecomeText();
  int32_t CodeOf(std::string_view text);

  Column column_;
  int64_t rows_ = 0;
  bool text_ = false, real_ = false, numbers_ = false, rescan_ = false;
  std::unordered_map<std::string, int32_t, TransparentHash, std::equal_to<>> codes_;
};

}  // namespace lepton::storage
