#include <algorithm>
#include <cstdio>
#include <limits>

#include "cli/api_client.h"
#include "cli/output.h"
#include "runtime/base/file.h"
#include "storage/datasets/table.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct PredictOptions {
  std::string deployment, input, rows, label;
  int64_t limit = 0;
};

// One cell as JSON: null where missing.
json Cell(const storage::Column& column, int64_t row) {
  const auto i = static_cast<size_t>(row);
  if (column.type == storage::ColumnType::kText) {
    const int32_t code = column.codes[i];
    return code < 0 ? json(nullptr) : json(column.dictionary[static_cast<size_t>(code)]);
  }
  return column.values[i] == column.values[i] ? json(column.values[i]) : json(nullptr);
}

// {"rows": [...]}, a list of rows, or one row.
Result<json> RowsOfJson(const std::string& text, const std::string& source) {
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) return InvalidArgument(source + ": not valid JSON");
  // A feature may have this name, too.
  if (parsed.is_object() && parsed.contains("rows") && parsed["rows"].is_array()) {
    parsed = json(parsed["rows"]);
  }
  if (parsed.is_object()) parsed = json::array({json(parsed)});
  const bool rows =
      parsed.is_array() &&
      std::all_of(parsed.begin(), parsed.end(), [](const json& row) { return row.is_object(); });
  if (rows) return parsed;
  return InvalidArgument(source + ": must be a row, {\"column\": value, ...}, or a list of rows");
}

// From a CSV with a header.
Result<json> RowsOfCsv(const std::string& text, const std::string& path, const std::string& label) {
  Result<storage::Table> table = storage::ReadCsv(text);
  if (!table.ok()) return table.status().WithContext(path);
  json rows = json::array();
  for (int64_t row = 0; row < table->rows; ++row) {
    json item = json::object();
    for (const storage::Column& column : table->columns) {
      if (column.name != label) item[column.name] = Cell(column, row);
    }
    rows.push_back(std::move(item));
  }
  return rows;
}

// The column that the deployment's model predicts, which its rows may not have; empty for a key
// that may ask but not look.
Result<std::string> LabelOf(ApiClient& client, const std::string& deployment) {
  const Result<json> deployed = client.Get("/v1/deployments/" + UrlEncode(deployment));
  if (deployed.status().code() == StatusCode::kPermissionDenied) return std::string();
  if (!deployed.ok()) return deployed.status();
  LEPTON_ASSIGN_OR_RETURN(const json version,
                          client.Get("/v1/models/" + UrlEncode(Text(*deployed, "model")) +
                                     "/versions/" + UrlEncode(Text(*deployed, "version"))));
  return Text(version, "label");
}

Result<json> RowsOf(ApiClient& client, const PredictOptions& options) {
  if (!options.rows.empty()) return RowsOfJson(options.rows, "--row");
  const std::string& path = options.input;
  LEPTON_ASSIGN_OR_RETURN(const std::string text,
                          ReadFile(path == "-" ? "/dev/stdin" : path, size_t{1} << 30));
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && (text[first] == '{' || text[first] == '[')) {
    return RowsOfJson(text, path);
  }
  std::string label = options.label;
  if (label.empty()) {
    LEPTON_ASSIGN_OR_RETURN(label, LabelOf(client, options.deployment));
  }
  return RowsOfCsv(text, path, label);
}

int Predict(const Globals& globals, const PredictOptions& options) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  Result<json> rows = RowsOf(**client, options);
  if (!rows.ok()) return Fail(rows.status());
  if (options.limit > 0 && rows->size() > static_cast<size_t>(options.limit)) {
    rows->erase(rows->begin() + options.limit, rows->end());
  }
  // In pieces that the replica's queue takes.
  constexpr size_t kRowsPerRequest = 256;
  json predictions = json::array();
  for (size_t begin = 0; begin < rows->size() || begin == 0; begin += kRowsPerRequest) {
    json piece = json::array();
    for (size_t i = begin; i < std::min(rows->size(), begin + kRowsPerRequest); ++i) {
      piece.push_back((*rows)[i]);
    }
    const Result<json> answer = (*client)->Send(
        "POST", "/v1/deployments/" + UrlEncode(options.deployment) + ":predict", {{"rows", piece}});
    if (!answer.ok()) return Fail(answer.status());
    for (const json& item : answer->value("predictions", json::array()))
      predictions.push_back(item);
  }
  if (globals.output != "table") {
    std::fputs(Document(predictions, globals.output).c_str(), stdout);
    return kExitOk;
  }
  const bool labels = !predictions.empty() && predictions[0].contains("label");
  Table table(labels ? std::vector<std::string>{"ROW", "LABEL", "PROBABILITY"}
                     : std::vector<std::string>{"ROW", "VALUE"});
  for (size_t i = 0; i < predictions.size(); ++i) {
    const json& item = predictions[i];
    if (labels) {
      const bool said = !item.value("probability", json()).is_null();
      table.Row({std::to_string(i), Text(item, "label"),
                 said ? Fixed(Number(item, "probability"), 4) : "-"});
    } else {
      table.Row({std::to_string(i), Text(item, "value")});
    }
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPredict(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<PredictOptions>();
  CLI::App* command = AddAction(app, globals, "predict", "Ask a deployment for predictions",
                                [&globals, options] { return Predict(globals, *options); });
  command->footer(
      "Examples:\n"
      "  lepton predict digits --input rows.csv\n"
      "  lepton predict digits --row '{\"width\": 1.5, \"height\": null}'   null: missing\n"
      "  cat rows.json | lepton predict digits --input - -o json");
  command->add_option("deployment", options->deployment, "Its name")->required();
  auto* input = command->add_option("-i,--input", options->input,
                                    "CSV with a header, or JSON rows; - for standard input");
  command->add_option("--row", options->rows, "One row as JSON: '{\"column\": 1.5, ...}'")
      ->excludes(input);
  command->add_option("--label", options->label,
                      "Column of a CSV that holds the answer, and is left out [the model's, for "
                      "a key that may read it]");
  command->add_option("--limit", options->limit, "At most so many rows of the input [all]")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()));
  command->callback([&globals, options] {
    if (options->input.empty() && options->rows.empty()) {
      throw CLI::RequiredError("predict: --input or --row");
    }
    if (!globals.action)
      globals.action = [&globals, options] { return Predict(globals, *options); };
  });
}

}  // namespace lepton::cli
