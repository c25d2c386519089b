#include "storage/datasets/table.h"

#include <charconv>
#include <cmath>

namespace lepton::storage {

std::string_view ColumnTypeName(ColumnType type) {
  switch (type) {
    case ColumnType::kInteger:
      return "integer";
    case ColumnType::kReal:
      return "real";
    case ColumnType::kText:
      break;
  }
  return "text";
}

bool ColumnTypeFromName(std::string_view name, ColumnType* type) {
  for (const ColumnType t : {ColumnType::kInteger, ColumnType::kReal, ColumnType::kText}) {
    if (ColumnTypeName(t) == name) return *type = t, true;
  }
  return false;
}

std::string NumberText(ColumnType type, double value) {
  char buffer[64];
  // Adding 0 turns -0 into 0: equal values, equal text.
  const auto result =
      type == ColumnType::kInteger
          ? std::to_chars(buffer, buffer + sizeof(buffer), static_cast<int64_t>(value))
          : std::to_chars(buffer, buffer + sizeof(buffer), value + 0.0);
  return std::string(buffer, result.ptr);
}

bool Column::Missing(int64_t row) const {
  return type == ColumnType::kText ? codes[row] < 0 : std::isnan(values[row]);
}

std::string Column::CellText(int64_t row) const {
  if (Missing(row)) return "";
  return type == ColumnType::kText ? dictionary[codes[row]] : NumberText(type, values[row]);
}

const Column* Table::Find(std::string_view name) const {
  for (const Column& column : columns) {
    if (column.name == name) return &column;
  }
  return nullptr;
}

}  // namespace lepton::storage
