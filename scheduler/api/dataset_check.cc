#include "scheduler/api/dataset_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace lepton::api {
namespace {

using storage::ColumnType;
using ColumnInfo = storage::DatasetManifest::ColumnInfo;

// The first few of many names, and the last, where labels often are.
std::string Listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 12;
  if (names.size() <= kShown) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{}, ..., {} ({} in all)",
                     fmt::join(names.begin(), names.begin() + kShown, ", "), names.back(),
                     names.size());
}

Result<ColumnInfo> FindLabel(const storage::DatasetManifest& dataset, const std::string& label) {
  std::vector<std::string> names;
  for (const auto& column : dataset.columns) {
    if (column.name == label) return column;
    names.push_back(column.name);
  }
  return InvalidArgument(fmt::format("dataset.label: no column \"{}\" in the data: there are {}",
                                     label, Listed(names)));
}

Status CheckLabel(const ColumnInfo& label, const std::string& loss) {
  if (label.missing > 0) {
    return InvalidArgument(fmt::format("dataset.label: {} rows have no \"{}\": remove them first",
                                       label.missing, label.name));
  }
  if (loss == "mse") {
    if (label.type != ColumnType::kText) return Status::Ok();
    return InvalidArgument(
        fmt::format("dataset.label: \"{}\" is a text column; loss mse needs numbers", label.name));
  }
  const size_t classes = label.classes.size();
  if (classes == 0) {
    return InvalidArgument(
        fmt::format("dataset.label: \"{}\" has more than 1000 distinct values; loss {} needs "
                    "classes: use loss mse for numbers",
                    label.name, loss));
  }
  if (loss == "binary_cross_entropy" && classes != 2) {
    return InvalidArgument(
        fmt::format("loss: binary_cross_entropy needs exactly 2 classes, but \"{}\" has {}: use "
                    "cross_entropy",
                    label.name, classes));
  }
  if (classes < 2) {
    return InvalidArgument(
        fmt::format("dataset.label: \"{}\" is \"{}\" in every row: nothing to learn", label.name,
                    label.classes[0]));
  }
  return Status::Ok();
}

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Status CheckFeatures(const storage::DatasetManifest& dataset, const spec::JobSpec& spec,
                     const storage::ModelManifest* like) {
  std::vector<std::string> text, missing;
  for (const auto& column : dataset.columns) {
    if (column.name == spec.dataset.label) continue;
    if (like != nullptr && !Contains(like->feature_names, column.name)) continue;
    if (column.type == ColumnType::kText) text.push_back(column.name);
    if (column.missing > 0) missing.push_back(column.name);
  }
  if (!text.empty()) {
    return InvalidArgument(
        fmt::format("dataset: features must be numbers, but these columns are text: {}: encode or "
                    "remove them, or "
                    "learn from one with dataset.text",
                    Listed(text)));
  }
  if (spec.dataset.pixels() && !missing.empty()) {
    return InvalidArgument(fmt::format(
        "dataset.image: a picture has all its pixels, but cells are missing in {}: fill them",
        Listed(missing)));
  }
  if (spec.dataset.missing == "error" && !missing.empty()) {
    return InvalidArgument(
        fmt::format("dataset.missing: cells are missing in {}: fill them, or set missing: mean",
                    Listed(missing)));
  }
  return Status::Ok();
}

Status CheckRows(const DatasetFacts& facts, const spec::SplitSpec& split) {
  const double test = 1 - split.train - split.validation;
  const auto check = [&](const char* part, double share, int64_t rows) {
    constexpr double kRounding = 1e-9;  // 1 - 0.8 - 0.2 is not quite 0
    if (share < kRounding || rows >= 1) return Status::Ok();
    return InvalidArgument(
        fmt::format("dataset.split: {} rows are too few: the {} part ({:g}) would be empty",
                    facts.rows, part, share));
  };
  LEPTON_RETURN_IF_ERROR(check("train", split.train, facts.train_rows));
  LEPTON_RETURN_IF_ERROR(check("validation", split.validation, facts.validation_rows));
  return check("test", test, facts.test_rows);
}

}  // namespace

namespace {

using storage::DatasetKind;

void SetShares(const spec::SplitSpec& split, int64_t rows, DatasetFacts* facts) {
  const auto share = [&](double part) {
    return static_cast<int64_t>(std::llround(static_cast<double>(rows) * part));
  };
  facts->rows = rows;
  facts->train_rows = share(split.train);
  facts->validation_rows = std::min(share(split.validation), rows - facts->train_rows);
  facts->test_rows = rows - facts->train_rows - facts->validation_rows;
}

Status CheckTextColumn(const storage::DatasetManifest& dataset, const char* field,
                       const std::string& name) {
  if (name.empty()) return Status::Ok();
  const ColumnInfo* column = dataset.Find(name);
  if (column == nullptr) {
    std::vector<std::string> names;
    for (const auto& known : dataset.columns) names.push_back(known.name);
    return InvalidArgument(fmt::format("dataset.{}: no column \"{}\" in the data: there are {}",
                                       field, name, Listed(names)));
  }
  if (column->type == ColumnType::kText) return Status::Ok();
  return InvalidArgument(fmt::format("dataset.{}: \"{}\" holds numbers, not text", field, name));
}

// What rows of a table are to the model: as the spec says, or as the model was trained.
std::string InputOfTable(const spec::JobSpec& spec, const storage::ModelManifest* like) {
  if (!spec.dataset.text.empty() || !spec.dataset.messages.empty()) return "tokens";
  if (spec.dataset.pixels()) return "images";
  return like == nullptr ? "features" : like->input.kind;
}

// A table whose columns are pixels.
Status CheckPixels(const spec::PictureSpec& image, DatasetFacts* facts) {
  const auto columns = static_cast<int64_t>(facts->features.size());
  const int64_t plane = image.height * image.width;
  facts->channels = image.channels;
  facts->height = image.height;
  facts->width = image.width;
  if (facts->channels == 0 && columns % plane == 0) facts->channels = columns / plane;
  if (facts->channels * plane == columns) return Status::Ok();
  return InvalidArgument(fmt::format(
      "dataset.image: {} x {} x {} pixels, but the table has {} columns beside the label",
      std::max<int64_t>(1, facts->channels), image.height, image.width, columns));
}

// Of a chat nothing is cut, and nothing may be left out as the model writes its answer.
Status CheckContextOfChats(const spec::JobSpec& spec, const storage::ModelManifest* like) {
  if (spec.dataset.messages.empty() || like == nullptr || like->input.context == 0 ||
      spec.dataset.context <= like->input.context) {
    return Status::Ok();
  }
  return InvalidArgument(fmt::format("dataset.context: {}, but the model has learned to read {}",
                                     spec.dataset.context, like->input.context));
}

Result<DatasetFacts> CheckTable(const storage::DatasetManifest& dataset, const spec::JobSpec& spec,
                                const storage::ModelManifest* like) {
  DatasetFacts facts;
  facts.input = InputOfTable(spec, like);
  const bool labelled = spec.kind != spec::JobKind::kBatch || spec.batch->output.rows != "all";
  if (spec.loss != "next_token" && labelled) {
    LEPTON_ASSIGN_OR_RETURN(const ColumnInfo label, FindLabel(dataset, spec.dataset.label));
    LEPTON_RETURN_IF_ERROR(CheckLabel(label, spec.loss));
    if (spec.loss != "mse") facts.classes = label.classes;
  }
  if (facts.input == "tokens") {
    LEPTON_RETURN_IF_ERROR(CheckTextColumn(dataset, "text", spec.dataset.text));
    LEPTON_RETURN_IF_ERROR(CheckTextColumn(dataset, "text_pair", spec.dataset.text_pair));
    LEPTON_RETURN_IF_ERROR(CheckTextColumn(dataset, "messages", spec.dataset.messages));
    LEPTON_RETURN_IF_ERROR(CheckContextOfChats(spec, like));
  } else {
    if (spec.loss == "next_token") {
      return InvalidArgument(
          "loss: next_token needs text: name its column with dataset.text, or give a file of text");
    }
    LEPTON_RETURN_IF_ERROR(CheckFeatures(dataset, spec, like));
    for (const auto& column : dataset.columns) {
      if (column.name != spec.dataset.label) facts.features.push_back(column.name);
    }
    if (facts.features.empty()) {
      return InvalidArgument(
          fmt::format("dataset: there is no column besides the label \"{}\"", spec.dataset.label));
    }
    if (facts.input == "images" && like == nullptr) {
      LEPTON_RETURN_IF_ERROR(CheckPixels(spec.dataset.image, &facts));
    }
  }
  SetShares(spec.dataset.split, dataset.rows, &facts);
  if (labelled) LEPTON_RETURN_IF_ERROR(CheckRows(facts, spec.dataset.split));
  return facts;
}

Result<DatasetFacts> CheckPictures(const storage::DatasetManifest& dataset,
                                   const spec::JobSpec& spec) {
  DatasetFacts facts;
  facts.input = "images";
  facts.channels = spec.dataset.image.channels;
  facts.height = spec.dataset.image.height;
  facts.width = spec.dataset.image.width;
  facts.classes = dataset.classes;
  SetShares(spec.dataset.split, dataset.rows, &facts);
  if (spec.kind == spec::JobKind::kBatch) return facts;
  if (spec.loss != "cross_entropy" && spec.loss != "binary_cross_entropy") {
    return InvalidArgument(fmt::format(
        "loss: pictures in folders have classes, which loss {} cannot learn; use cross_entropy",
        spec.loss));
  }
  if (facts.classes.size() < 2) {
    return InvalidArgument(fmt::format(
        "dataset: all pictures are of class \"{}\": nothing to learn", facts.classes[0]));
  }
  if (spec.loss == "binary_cross_entropy" && facts.classes.size() != 2) {
    return InvalidArgument(
        fmt::format("loss: binary_cross_entropy needs exactly 2 classes, but there are {} folders: "
                    "use cross_entropy",
                    facts.classes.size()));
  }
  LEPTON_RETURN_IF_ERROR(CheckRows(facts, spec.dataset.split));
  return facts;
}

Result<DatasetFacts> CheckStream(const storage::DatasetManifest& dataset,
                                 const spec::JobSpec& spec) {
  if (spec.loss != "next_token") {
    return InvalidArgument(
        fmt::format("loss: a stream of text has no labels for loss {}; use next_token", spec.loss));
  }
  DatasetFacts facts;
  facts.input = "tokens";
  if (dataset.kind == DatasetKind::kTokens) {
    const int64_t context = spec.dataset.context > 0             ? spec.dataset.context
                            : spec.model.transformer.context > 0 ? spec.model.transformer.context
                                                                 : 128;
    SetShares(spec.dataset.split, dataset.rows / context, &facts);
  }
  return facts;
}

}  // namespace

Result<DatasetFacts> CheckDataset(const storage::DatasetManifest& dataset,
                                  const spec::JobSpec& spec, const storage::ModelManifest* like) {
  if (!spec.dataset.messages.empty() && dataset.kind != DatasetKind::kTable) {
    return InvalidArgument(
        "dataset.messages: names a column of a table, but the data is none: give chats as JSON "
        "lines (dataset.format: jsonl) or as CSV, one in each row");
  }
  switch (dataset.kind) {
    case DatasetKind::kTable:
      return CheckTable(dataset, spec, like);
    case DatasetKind::kImages:
      return CheckPictures(dataset, spec);
    case DatasetKind::kText:
    case DatasetKind::kTokens:
      break;
  }
  return CheckStream(dataset, spec);
}

namespace {

// auto or none; empty for architectures whose head is not apart from the rest.
std::string HeadOf(const storage::ModelManifest& model) {
  const auto document =
      nlohmann::json::parse(model.model_spec_json, nullptr, /*allow_exceptions=*/false);
  const auto parsed = document.is_object() ? spec::ModelSpecFromJson(document)
                                           : Result<spec::ModelSpec>(spec::ModelSpec());
  if (!parsed.ok() || parsed->arch == "mlp" || parsed->arch == "onnx") return "";
  return parsed->head;
}

}  // namespace

Status CheckModelFits(std::string_view field, const std::string& name,
                      const storage::ModelManifest& model, const DatasetFacts& facts,
                      const spec::JobSpec& spec) {
  if (model.input.kind != facts.input) {
    return InvalidArgument(fmt::format("{}: {} takes {}, but the data is {}", field, name,
                                       model.input.kind, facts.input));
  }
  const bool starts = field == "model.from" && spec.kind != spec::JobKind::kEvaluate &&
                      spec.kind != spec::JobKind::kBatch;
  if (facts.input == "images" && !starts && model.feature_names.empty() != facts.features.empty()) {
    const storage::ModelInput& in = model.input;
    return InvalidArgument(fmt::format(
        "{}: {} takes pictures of {} x {} x {} {}, but the data is {}", field, name, in.channels,
        in.height, in.width,
        model.feature_names.empty() ? "that are files" : "that are a table's columns",
        facts.features.empty()
            ? std::string("files")
            : fmt::format("a table of {} columns beside the label", facts.features.size())));
  }
  std::vector<std::string> absent;
  for (const auto& feature : model.feature_names) {
    if (!Contains(facts.features, feature)) absent.push_back(feature);
  }
  if (!absent.empty()) {
    return InvalidArgument(fmt::format("{}: {} needs columns that the dataset lacks: {}", field,
                                       name, Listed(absent)));
  }
  // What learns on may get a head of its own.
  if (model.labels_tokens() && !starts) {
    return InvalidArgument(fmt::format(
        "{}: {} gives a class per token, but rows have one answer: train one on it first", field,
        name));
  }
  if (spec.kind == spec::JobKind::kBatch) return Status::Ok();
  const std::string head = HeadOf(model);
  if (spec.kind == spec::JobKind::kEvaluate && head == "none") {
    return InvalidArgument(fmt::format(
        "{}: {} is a body without a head, which predicts nothing: train one on it first", field,
        name));
  }
  if (starts && !head.empty()) return Status::Ok();
  if (model.classes.empty() != facts.classes.empty()) {
    return InvalidArgument(fmt::format("{}: {} was trained with loss {}, this job has {}", field,
                                       name, model.loss, spec.loss));
  }
  // In whatever order: the task takes the teacher's. That they are the same is for the loop to see.
  if (field == "teacher" && model.classes.size() != facts.classes.size()) {
    return InvalidArgument(fmt::format("{}: {} has the classes {}, the dataset {}", field, name,
                                       Listed(model.classes), Listed(facts.classes)));
  }
  for (const auto& value : facts.classes) {
    if (Contains(model.classes, value)) continue;
    return InvalidArgument(
        fmt::format("{}: {} knows no class \"{}\", which the dataset has: it knows {}", field, name,
                    value, Listed(model.classes)));
  }
  return Status::Ok();
}

}  // namespace lepton::api
