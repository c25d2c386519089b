#include "worker/batch/prediction_writer.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace lepton::worker {
namespace {

using Json = nlohmann::json;

// "nan" and "inf" are no JSON numbers: null there, empty in CSV.
template <typename Number>
std::string NumberText(Number value) {
  if (!std::isfinite(static_cast<double>(value))) return "";
  char text[48];
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end);
}

std::string JsonNumber(double value) {
  const std::string text = NumberText(value);
  return text.empty() ? "null" : text;
}
std::string JsonNumber(float value) {
  const std::string text = NumberText(value);
  return text.empty() ? "null" : text;
}

std::string JsonText(std::string_view text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ClassName(const std::vector<std::string>& classes, size_t i) {
  return i < classes.size() ? classes[i] : std::to_string(i);
}

}  // namespace

std::string CsvField(std::string_view text) {
  const bool plain =
      text.find_first_of(",\"\r\n") == text.npos && !text.starts_with(' ') && !text.ends_with(' ');
  if (plain) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string PredictionWriter::Header() const {
  if (options_.format != "csv") return "";
  std::string header = RowName();
  if (options_.files) header += ",file";
  if (options_.kind == Kind::kValues && options_.values == 1) header += ",value";
  if (options_.kind == Kind::kValues && options_.values > 1) {
    for (int64_t i = 0; i < options_.values; ++i) header += ",value_" + std::to_string(i);
  }
  if (losses()) header += ",tokens,loss,perplexity";
  if (options_.kind == Kind::kClasses) {
    header += ",label";
    for (const std::string& name : options_.classes)
      header += "," + CsvField("probability_" + name);
  }
  if (options_.generated) header += ",generated";
  return header + "\n";
}

void PredictionWriter::Append(const RowAnswer& answer, std::string* out) const {
  if (options_.format == "csv") return AppendCsv(answer, out);
  AppendJson(answer, out);
}

void PredictionWriter::AppendCsv(const RowAnswer& answer, std::string* out) const {
  *out += std::to_string(answer.row);
  if (options_.files) *out += "," + CsvField(answer.file);
  if (options_.kind == Kind::kValues) {
    for (const float value : answer.values) *out += "," + NumberText(value);
  }
  if (losses()) {
    *out += "," + std::to_string(answer.tokens) + "," + NumberText(answer.loss) + "," +
            NumberText(std::exp(answer.loss));
  }
  if (options_.kind == Kind::kClasses) {
    *out += "," + CsvField(answer.prediction.label);
    for (const float p : answer.prediction.probabilities) *out += "," + NumberText(p);
  }
  if (options_.generated) *out += "," + CsvField(answer.generated);
  *out += '\n';
}

void PredictionWriter::AppendJson(const RowAnswer& answer, std::string* out) const {
  *out += std::string("{\"") + RowName() + "\":" + std::to_string(answer.row);
  if (options_.files) *out += ",\"file\":" + JsonText(answer.file);
  if (options_.kind == Kind::kValues) {
    *out += options_.values == 1 ? ",\"value\":" : ",\"values\":[";
    for (size_t i = 0; i < answer.values.size(); ++i) {
      *out += (i > 0 ? "," : "") + JsonNumber(answer.values[i]);
    }
    if (options_.values != 1) *out += "]";
  }
  if (losses()) {
    *out += ",\"tokens\":" + std::to_string(answer.tokens) +
            ",\"loss\":" + JsonNumber(answer.loss) +
            ",\"perplexity\":" + JsonNumber(std::exp(answer.loss));
  }
  if (options_.kind == Kind::kClasses) {
    *out += ",\"label\":" + JsonText(answer.prediction.label) + ",\"probabilities\":{";
    for (size_t i = 0; i < answer.prediction.probabilities.size(); ++i) {
      *out += (i > 0 ? "," : "") + JsonText(ClassName(options_.classes, i)) + ":" +
              JsonNumber(answer.prediction.probabilities[i]);
    }
    *out += "}";
  }
  if (options_.generated) *out += ",\"generated\":" + JsonText(answer.generated);
  *out += "}\n";
}

}  // namespace lepton::worker
