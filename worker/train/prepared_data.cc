#include "worker/train/prepared_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "worker/train/normalize.h"

namespace lepton::worker {
namespace {

using storage::Column;
using storage::ColumnType;
using storage::DatasetManifest;
using storage::ModelManifest;
using storage::Table;

Result<const Column*> FindLabel(const Table& table, const std::string& name) {
  if (const Column* label = table.Find(name)) return label;
  std::string names;
  for (size_t i = 0; i < table.columns.size() && i < 20; ++i) {
    names += (i ? ", " : "") + table.columns[i].name;
  }
  if (table.columns.size() > 20) names += ", ...";
  return InvalidArgument(
      fmt::format("dataset.label: no column \"{}\"; the columns are {}", name, names));
}

int64_t MissingCells(const Column& column) {
  if (column.type == ColumnType::kText) {
    return std::count(column.codes.begin(), column.codes.end(), -1);
  }
  return std::count_if(column.values.begin(), column.values.end(),
                       [](double value) { return std::isnan(value); });
}

// "7" and "7.0" are one class of a numeric column, so numbers are compared as numbers.
std::optional<double> ParseNumber(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Finds a label cell's class index.
class ClassLookup {
 public:
  ClassLookup(const Column& label, const std::vector<std::string>& classes) : label_(label) {
    for (size_t i = 0; i < classes.size(); ++i) {
      const int32_t index = static_cast<int32_t>(i);
      by_text_.emplace(classes[i], index);
      if (const auto number = ParseNumber(classes[i])) by_number_.emplace(*number, index);
    }
  }

  // -1 when the cell's class is not listed.
  int32_t Find(int64_t row) const {
    if (label_.type == ColumnType::kText) {
      const auto found = by_text_.find(label_.dictionary[label_.codes[row]]);
      return found == by_text_.end() ? -1 : found->second;
    }
    const auto found = by_number_.find(label_.values[row]);
    return found == by_number_.end() ? -1 : found->second;
  }

  std::string Text(int64_t row) const {
    if (label_.type == ColumnType::kText) return label_.dictionary[label_.codes[row]];
    return fmt::format("{}", label_.values[row]);
  }

 private:
  const Column& label_;
  std::map<std::string, int32_t> by_text_;
  std::map<double, int32_t> by_number_;
};

Result<std::vector<std::string>> ListClasses(const DatasetManifest& manifest,
                                             const std::string& label, const std::string& loss) {
  for (const DatasetManifest::ColumnInfo& column : manifest.columns) {
    if (column.name != label) continue;
    if (column.classes.empty()) {
      return InvalidArgument(fmt::format(
          "dataset.label: column \"{}\" has more than 1000 distinct values, too many for classes; "
          "for a number to predict, set loss: mse",
          label));
    }
    if (column.classes.size() < 2) {
      return InvalidArgument(fmt::format(
          "dataset.label: column \"{}\" has only one class, \"{}\"; there is nothing to learn",
          label, column.classes[0]));
    }
    if (loss == "binary_cross_entropy" && column.classes.size() != 2) {
      return InvalidArgument(
          fmt::format("loss: binary_cross_entropy needs 2 classes, but column \"{}\" has {}; use "
                      "cross_entropy",
                      label, column.classes.size()));
    }
    return column.classes;
  }
  return DataLoss(fmt::format("dataset manifest: column \"{}\" of the table is not listed", label));
}

// One class index per row of the table.
Result<std::vector<int32_t>> ClassOfRows(const Table& table, const Column& label,
                                         const std::vector<std::string>& classes) {
  const ClassLookup lookup(label, classes);
  std::vector<int32_t> result(table.rows);
  for (int64_t row = 0; row < table.rows; ++row) {
    result[row] = lookup.Find(row);
    if (result[row] < 0) {
      return InvalidArgument(
          fmt::format("dataset: row {} has class \"{}\", which was not seen in training; the "
                      "model's classes are {}",
                      row + 1, lookup.Text(row), fmt::join(classes, ", ")));
    }
  }
  return result;
}

Status CheckClassesSeen(const std::vector<int32_t>& class_of_row, const storage::Split& split,
                        const std::vector<std::string>& classes) {
  std::vector<int64_t> trained(classes.size()), held_out(classes.size());
  for (const int64_t row : split.train) ++trained[class_of_row[row]];
  for (const int64_t row : split.validation) ++held_out[class_of_row[row]];
  for (const int64_t row : split.test) ++held_out[class_of_row[row]];
  for (size_t i = 0; i < classes.size(); ++i) {
    if (trained[i] > 0 || held_out[i] == 0) continue;
    return InvalidArgument(fmt::format(
        "dataset.split: class \"{}\" is unseen in training: its {} row{} in validation or test; "
        "add rows of it, drop it, or raise split.train",
        classes[i], held_out[i], held_out[i] == 1 ? " is" : "s are"));
  }
  return Status::Ok();
}

Status CheckFeature(const Column& column, const spec::DatasetSpec& dataset) {
  if (column.type == ColumnType::kText) {
    return InvalidArgument(
        fmt::format("dataset: column \"{}\" holds text (\"{}\"); features must be numbers: encode "
                    "it as numbers or drop it",
                    column.name, column.dictionary.empty() ? "" : column.dictionary[0]));
  }
  for (size_t row = 0; row < column.values.size(); ++row) {
    if (std::isinf(column.values[row])) {
      return InvalidArgument(
          fmt::format("dataset: column \"{}\" is infinite in row {}", column.name, row + 1));
    }
  }
  const int64_t missing = MissingCells(column);
  if (missing > 0 && dataset.missing == "error") {
    return InvalidArgument(
        fmt::format("dataset.missing: column \"{}\" has {} missing cell{}; fill them in, or set "
                    "missing: mean",
                    column.name, missing, missing == 1 ? "" : "s"));
  }
  if (missing > 0 && dataset.normalize == "none") {
    return InvalidArgument(
        fmt::format("dataset.normalize: column \"{}\" has {} missing cell{}, which take the mean "
                    "of normalised columns only; set normalize: standard, or fill them in",
                    column.name, missing, missing == 1 ? "" : "s"));
  }
  return Status::Ok();
}

// Population mean and deviation of a column's present cells, in two passes.
Status Measure(const Column& column, const std::vector<int64_t>& rows, double& mean,
               double& scale) {
  double sum = 0;
  int64_t count = 0;
  for (const int64_t row : rows) {
    if (std::isnan(column.values[row])) continue;
    sum += column.values[row];
    ++count;
  }
  mean = count ? sum / static_cast<double>(count) : 0;
  double squares = 0;
  for (const int64_t row : rows) {
    if (std::isnan(column.values[row])) continue;
    squares += (column.values[row] - mean) * (column.values[row] - mean);
  }
  scale = count ? std::sqrt(squares / static_cast<double>(count)) : 0;
  if (!std::isfinite(mean) || !std::isfinite(scale)) {
    return InvalidArgument(
        fmt::format("dataset: column \"{}\" holds values too large to average", column.name));
  }
  // A constant column: its deviation is rounding noise at most.
  if (scale <= 1e-12 * std::abs(mean) || scale == 0) scale = 1;
  return Status::Ok();
}

Result<std::vector<const Column*>> ChooseFeatures(const Table& table, const std::string& label,
                                                  const ModelManifest* like) {
  std::vector<const Column*> columns;
  if (like == nullptr) {
    for (const Column& column : table.columns) {
      if (column.name != label) columns.push_back(&column);
    }
    if (columns.empty()) {
      return InvalidArgument("dataset: there is no column beside the label to learn from");
    }
    return columns;
  }
  for (const std::string& name : like->feature_names) {
    const Column* column = table.Find(name);
    if (column == nullptr) {
      return InvalidArgument(
          fmt::format("dataset: feature \"{}\" of the model is not a column of the data", name));
    }
    columns.push_back(column);
  }
  return columns;
}

DataPart MakePart(const std::vector<int64_t>& rows, const std::vector<const Column*>& columns,
                  const PreparedData& data, const std::vector<int32_t>& class_of_row,
                  const Column& label, const std::string& loss) {
  DataPart part;
  part.row_numbers = rows;
  part.x.resize(rows.size() * columns.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column& column = *columns[i];
    for (size_t row = 0; row < rows.size(); ++row) {
      part.x[row * columns.size() + i] =
          NormalizeValue(column.values[rows[row]], data.mean[i], data.scale[i]);
    }
  }
  for (const int64_t row : rows) {
    if (loss != "mse") part.classes.push_back(class_of_row[row]);
    if (loss == "mse") part.values.push_back(static_cast<float>(label.values[row]));
    if (loss == "binary_cross_entropy") {
      part.values.push_back(static_cast<float>(class_of_row[row]));
    }
  }
  return part;
}

Status CheckLabel(const Column& label, const std::string& loss) {
  if (const int64_t missing = MissingCells(label); missing > 0) {
    return InvalidArgument(fmt::format("dataset.label: column \"{}\" is missing in {} row{}",
                                       label.name, missing, missing == 1 ? "" : "s"));
  }
  if (loss != "mse") return Status::Ok();
  if (label.type == ColumnType::kText) {
    return InvalidArgument(fmt::format(
        "dataset.label: loss mse needs numbers, but column \"{}\" holds text", label.name));
  }
  for (size_t row = 0; row < label.values.size(); ++row) {
    if (std::abs(label.values[row]) <= std::numeric_limits<float>::max()) continue;
    return InvalidArgument(
        fmt::format("dataset.label: column \"{}\" is out of range in row {}", label.name, row + 1));
  }
  return Status::Ok();
}

}  // namespace

int64_t PreparedData::outputs(const std::string& loss) const {
  return loss == "cross_entropy" ? static_cast<int64_t>(classes.size()) : 1;
}

Result<PreparedData> PrepareData(const DatasetManifest& manifest, const Table& table,
                                 const spec::DatasetSpec& dataset, const std::string& loss,
                                 const ModelManifest* like) {
  LEPTON_ASSIGN_OR_RETURN(const Column* const label, FindLabel(table, dataset.label));
  LEPTON_RETURN_IF_ERROR(CheckLabel(*label, loss));
  PreparedData data;
  data.label_name = label->name;
  const bool classify = loss != "mse";
  std::vector<int32_t> class_of_row;
  if (classify) {
    if (like != nullptr) {
      data.classes = like->classes;
    } else {
      LEPTON_ASSIGN_OR_RETURN(data.classes, ListClasses(manifest, label->name, loss));
    }
    LEPTON_ASSIGN_OR_RETURN(class_of_row, ClassOfRows(table, *label, data.classes));
  }
  LEPTON_ASSIGN_OR_RETURN(
      const storage::Split split,
      storage::SplitRows(table.rows, dataset.split.train, dataset.split.validation,
                         dataset.split.seed, classify ? &class_of_row : nullptr));
  if (classify && like == nullptr) {
    LEPTON_RETURN_IF_ERROR(CheckClassesSeen(class_of_row, split, data.classes));
  }

  LEPTON_ASSIGN_OR_RETURN(const std::vector<const Column*> columns,
                          ChooseFeatures(table, label->name, like));
  data.mean.assign(columns.size(), 0);
  data.scale.assign(columns.size(), 1);
  for (size_t i = 0; i < columns.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(CheckFeature(*columns[i], dataset));
    data.feature_names.push_back(columns[i]->name);
    if (like == nullptr && dataset.normalize == "standard") {
      LEPTON_RETURN_IF_ERROR(Measure(*columns[i], split.train, data.mean[i], data.scale[i]));
    }
  }
  if (like != nullptr) {
    data.mean = like->mean;
    data.scale = like->scale;
  }
  data.train = MakePart(split.train, columns, data, class_of_row, *label, loss);
  data.validation = MakePart(split.validation, columns, data, class_of_row, *label, loss);
  data.test = MakePart(split.test, columns, data, class_of_row, *label, loss);
  return data;
}

Result<StoredDataset> LoadDataset(const storage::ObjectStore& objects,
                                  const storage::Digest& manifest) {
  StoredDataset stored;
  LEPTON_ASSIGN_OR_RETURN(const std::string json, objects.Get(manifest));
  LEPTON_ASSIGN_OR_RETURN(stored.manifest, storage::DatasetManifestFromJson(json));
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(stored.manifest.table));
  LEPTON_ASSIGN_OR_RETURN(stored.table, storage::TableFromSafetensors(bytes));
  return stored;
}

}  // namespace lepton::worker
