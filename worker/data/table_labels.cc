#include "worker/data/table_labels.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

namespace lepton::worker {
namespace {

using storage::Column;
using storage::ColumnType;
using storage::DatasetManifest;
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

Status UnknownClass(int64_t row, const std::string& name, const std::vector<std::string>& classes) {
  return InvalidArgument(
      fmt::format("dataset: row {} has class \"{}\", which was not seen in training; the "
                  "model's classes are {}",
                  row + 1, name, fmt::join(classes, ", ")));
}

// One class index per row of the table.
Result<std::vector<int32_t>> ClassOfRows(const Table& table, const Column& label,
                                         const std::vector<std::string>& classes) {
  const ClassLookup lookup(label, classes);
  std::vector<int32_t> result(table.rows);
  for (int64_t row = 0; row < table.rows; ++row) {
    result[row] = lookup.Find(row);
    if (result[row] < 0) {
      return UnknownClass(row, lookup.Text(row), classes);
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

// Rows by the shares of the spec, stratified by class where there are classes.
Result<storage::Split> Divide(int64_t rows, const DataRequest& request,
                              const std::vector<int32_t>& class_of_row) {
  const spec::SplitSpec& split = request.dataset.split;
  return storage::SplitRows(rows, split.train, split.validation, split.seed,
                            class_of_row.empty() ? nullptr : &class_of_row);
}

storage::Split AllForTest(int64_t rows) {
  storage::Split split;
  split.test.resize(rows);
  std::iota(split.test.begin(), split.test.end(), 0);
  return split;
}

// Of a model's classes, the index of each name; -1 where it has none.
std::vector<int32_t> IndicesOf(const std::vector<std::string>& names,
                               const std::vector<std::string>& classes) {
  std::vector<int32_t> indices;
  for (const std::string& name : names) {
    const auto found = std::find(classes.begin(), classes.end(), name);
    indices.push_back(found == classes.end() ? -1 : static_cast<int32_t>(found - classes.begin()));
  }
  return indices;
}

}  // namespace

Result<RowLabels> LabelsOfTable(const StoredDataset& dataset, const DataRequest& request) {
  const Table& table = dataset.table;
  RowLabels labels;
  if (request.like != nullptr) labels.classes = request.like->classes;
  if (!request.labels) {
    labels.split = AllForTest(table.rows);
    return labels;
  }
  if (request.loss == "next_token") {
    LEPTON_ASSIGN_OR_RETURN(labels.split, Divide(table.rows, request, {}));
    return labels;
  }
  LEPTON_ASSIGN_OR_RETURN(const Column* const label, FindLabel(table, request.dataset.label));
  LEPTON_RETURN_IF_ERROR(CheckLabel(*label, request.loss));
  labels.name = label->name;
  if (request.loss == "mse") {
    for (const double value : label->values) {
      labels.value_of_row.push_back(static_cast<float>(value));
    }
  } else {
    if (request.like == nullptr) {
      LEPTON_ASSIGN_OR_RETURN(labels.classes,
                              ListClasses(dataset.manifest, label->name, request.loss));
    }
    LEPTON_ASSIGN_OR_RETURN(labels.class_of_row, ClassOfRows(table, *label, labels.classes));
  }
  LEPTON_ASSIGN_OR_RETURN(labels.split, Divide(table.rows, request, labels.class_of_row));
  if (request.loss != "mse" && request.like == nullptr) {
    LEPTON_RETURN_IF_ERROR(CheckClassesSeen(labels.class_of_row, labels.split, labels.classes));
  }
  return labels;
}

Result<RowLabels> LabelsOfFolders(const DatasetManifest& manifest, std::span<const int32_t> rows,
                                  const DataRequest& request) {
  RowLabels labels;
  labels.name = "class";
  labels.classes = request.like == nullptr ? manifest.classes : request.like->classes;
  if (!request.labels) {
    labels.split = AllForTest(manifest.rows);
    return labels;
  }
  if (request.loss != "cross_entropy" && request.loss != "binary_cross_entropy") {
    return InvalidArgument("loss: pictures in folders have classes, which loss " + request.loss +
                           " cannot learn; use cross_entropy");
  }
  const size_t classes = labels.classes.size();
  if (classes < 2) {
    return InvalidArgument(fmt::format(
        "dataset: all pictures are of class \"{}\"; there is nothing to learn", labels.classes[0]));
  }
  if (request.loss == "binary_cross_entropy" && classes != 2) {
    return InvalidArgument(fmt::format(
        "loss: binary_cross_entropy needs 2 classes, but there are {} folders; use cross_entropy",
        classes));
  }
  const std::vector<int32_t> indices = IndicesOf(manifest.classes, labels.classes);
  for (size_t row = 0; row < rows.size(); ++row) {
    labels.class_of_row.push_back(indices[rows[row]]);
    if (labels.class_of_row.back() < 0) {
      return UnknownClass(static_cast<int64_t>(row), manifest.classes[rows[row]], labels.classes);
    }
  }
  LEPTON_ASSIGN_OR_RETURN(labels.split, Divide(manifest.rows, request, labels.class_of_row));
  if (request.like == nullptr) {
    LEPTON_RETURN_IF_ERROR(CheckClassesSeen(labels.class_of_row, labels.split, labels.classes));
  }
  return labels;
}

void GiveLabels(const RowLabels& labels, const std::string& loss, std::span<const int64_t> rows,
                Examples& examples) {
  std::vector<int32_t> classes;
  std::vector<float> values;
  for (const int64_t row : rows) {
    if (!labels.class_of_row.empty()) classes.push_back(labels.class_of_row[row]);
    if (!labels.value_of_row.empty()) values.push_back(labels.value_of_row[row]);
    if (!labels.class_of_row.empty() && loss == "binary_cross_entropy") {
      values.push_back(static_cast<float>(labels.class_of_row[row]));
    }
  }
  examples.SetLabels(std::move(classes), std::move(values));
}

Result<std::vector<const Column*>> ChooseFeatures(const Table& table, const DataRequest& request) {
  std::vector<const Column*> columns;
  // A model of pictures that were files has no names.
  if (request.like == nullptr || request.like->feature_names.empty()) {
    for (const Column& column : table.columns) {
      if (column.name != request.dataset.label) columns.push_back(&column);
    }
    if (columns.empty()) {
      return InvalidArgument("dataset: there is no column beside the label to learn from");
    }
    return columns;
  }
  for (const std::string& name : request.like->feature_names) {
    const Column* column = table.Find(name);
    if (column == nullptr) {
      return InvalidArgument(
          fmt::format("dataset: feature \"{}\" of the model is not a column of the data", name));
    }
    columns.push_back(column);
  }
  return columns;
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

ExamplesPtr NoExamples() {
  static const ExamplesPtr none =
      std::make_shared<TableExamples>(std::vector<int64_t>{}, std::vector<float>{}, 0);
  return none;
}

}  // namespace lepton::worker
