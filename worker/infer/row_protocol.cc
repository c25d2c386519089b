#include "worker/infer/row_protocol.h"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/json_text.h"
#include "runtime/spec/fields.h"
#include "worker/infer/model_runtime.h"
#include "worker/infer/text_input.h"

namespace lepton::worker {
namespace {

using Json = nlohmann::json;

Status UnknownColumn(const ServedModel& model, const std::string& path, const std::string& column,
                     const std::vector<std::string>& known) {
  const storage::ModelManifest& manifest = *model.manifest;
  if (column == manifest.label_name) {
    return InvalidArgument(path + ": \"" + column + "\" is what the model predicts; leave it out");
  }
  const std::string near(spec::Nearest(column, known));
  return InvalidArgument(path + ": no column \"" + column + "\"" +
                         (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

Status ReadRow(const ServedModel& model, const std::map<std::string, size_t>& columns,
               const std::string& path, const Json& row, std::vector<double>& raw) {
  if (!row.is_object()) return InvalidArgument(path + ": must be an object of column names");
  const size_t begin = raw.size();
  raw.resize(begin + columns.size(), std::numeric_limits<double>::quiet_NaN());
  for (const auto& [name, cell] : row.items()) {
    const auto column = columns.find(name);
    if (column == columns.end())
      return UnknownColumn(model, path, name, model.manifest->feature_names);
    if (cell.is_null()) continue;
    if (!cell.is_number()) {
      return InvalidArgument(path + "." + name + ": must be a number or null, found " +
                             std::string(cell.type_name()));
    }
    raw[begin + column->second] = cell.get<double>();
  }
  if (row.size() == columns.size()) return {};
  for (const std::string& name : model.manifest->feature_names) {
    if (!row.contains(name)) {
      return InvalidArgument(path + "." + name + ": missing; give a number, or null if unknown");
    }
  }
  return {};
}

// The texts of a row under these names.
Status ReadTexts(const ServedModel& model, const std::vector<std::string>& names,
                 const std::string& path, const Json& row,
                 std::vector<std::vector<std::string>>& texts) {
  if (!row.is_object()) return InvalidArgument(path + ": must be an object of column names");
  for (const auto& [name, cell] : row.items()) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return UnknownColumn(model, path, name, names);
    }
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const auto cell = row.find(names[i]);
    if (cell == row.end() || !cell->is_string()) {
      return InvalidArgument(path + "." + names[i] + ": must be a text" +
                             (cell == row.end() ? ", is missing" : ""));
    }
    texts[i].push_back(cell->get<std::string>());
  }
  return {};
}

Result<ModelRows> ParseTexts(const ServedModel& model, const Json& rows) {
  const storage::ModelInput& input = model.manifest->input;
  std::vector<std::string> names = {input.text.empty() ? "text" : input.text};
  if (model.takes_pairs()) names.push_back(input.text_pair);
  std::vector<std::vector<std::string>> texts(names.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(
        ReadTexts(model, names, "rows[" + std::to_string(i) + "]", rows[i], texts));
  }
  ModelRows request;
  LEPTON_RETURN_IF_ERROR(
      EncodeTexts(model, texts[0], model.takes_pairs() ? &texts[1] : nullptr, &request));
  return request;
}

Result<ModelRows> ParsePictures(const ServedModel& model, const Json& rows) {
  ModelRows request;
  for (const Json& row : rows) {
    const std::string path = "rows[" + std::to_string(request.rows) + "].image";
    const auto image = row.is_object() ? row.find("image") : row.end();
    if (!row.is_object() || image == row.end() || !image->is_string() || row.size() != 1) {
      return InvalidArgument(path + ": must be a PNG or JPEG in base64, and all that a row has");
    }
    LEPTON_RETURN_IF_ERROR(
        DecodePicture(model, path, image->get_ref<const std::string&>(), &request.raw));
    ++request.rows;
  }
  return request;
}

}  // namespace

Result<ModelRows> ParseRows(const ServedModel& model, std::string_view body) {
  const Result<Json> parsed = ParseJson(body);
  if (!parsed.ok()) return parsed.status().WithContext("body");
  const Json& document = *parsed;
  if (!document.is_object()) return InvalidArgument("body: must be a JSON object");
  for (const auto& [key, value] : document.items()) {
    if (key != "rows") return InvalidArgument("body: no field \"" + key + "\"; only \"rows\"");
  }
  const auto rows = document.find("rows");
  if (rows == document.end() || !rows->is_array() || rows->empty()) {
    return InvalidArgument("rows: must be an array of at least one row");
  }
  if (model.takes_texts()) return ParseTexts(model, *rows);
  if (model.takes_files()) return ParsePictures(model, *rows);
  std::map<std::string, size_t> columns;
  for (const std::string& name : model.manifest->feature_names) {
    columns.emplace(name, columns.size());
  }
  ModelRows request;
  request.rows = static_cast<int64_t>(rows->size());
  for (size_t i = 0; i < rows->size(); ++i) {
    LEPTON_RETURN_IF_ERROR(
        ReadRow(model, columns, "rows[" + std::to_string(i) + "]", (*rows)[i], request.raw));
  }
  return request;
}

std::string EncodePredictions(const ServedModel& model, int64_t rows,
                              const std::vector<float>& logits) {
  Json predictions = Json::array();
  const auto width = static_cast<size_t>(model.outputs);
  const std::vector<std::string>& classes = model.manifest->classes;
  for (int64_t row = 0; row < rows; ++row) {
    const auto values = std::span(logits).subspan(static_cast<size_t>(row) * width, width);
    if (!model.classifies()) {
      predictions.push_back(
          width == 1 ? Json{{"value", values[0]}}
                     : Json{{"values", std::vector<float>(values.begin(), values.end())}});
      continue;
    }
    const Prediction one = Decode(*model.manifest, values);
    Json probabilities = Json::object();
    for (size_t i = 0; i < one.probabilities.size(); ++i) {
      probabilities[i < classes.size() ? classes[i] : std::to_string(i)] = one.probabilities[i];
    }
    const bool said = one.class_index >= 0;
    predictions.push_back(
        {{"label", said ? Json(one.label) : Json(nullptr)},
         {"probability",
          said ? Json(one.probabilities[static_cast<size_t>(one.class_index)]) : Json(nullptr)},
         {"probabilities", std::move(probabilities)}});
  }
  const Json document = {{"predictions", std::move(predictions)},
                         {"model", model.name + "@" + model.version}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lepton::worker
