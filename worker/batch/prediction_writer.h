// Predictions as lines of CSV or JSON.
//   classification    row, label, one probability a class
//   regression        row, value; of a model with several outputs (a body without a head) all of
//                     them: value_0, value_1, ... in CSV, {"values": [..]} in JSON
//   language models   row (of a table) or position (in a stream), tokens, loss, perplexity, and
//                     with generate the text that goes on from the row; loss is the mean over the
//                     row's predicted tokens. Of a chat the row and that text alone
//   pictures          file comes before the rest
// CSV names probability columns "probability_<class>"; JSON has {"probabilities": {"<class>": ..}}.
// Numbers are the shortest that read back the same.
// Threads: immutable; any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/infer/model_runtime.h"

namespace lepton::worker {

// What is said of one row.
struct RowAnswer {
  int64_t row = 0;
  std::string_view file;      // of pictures
  Prediction prediction;      // classification
  std::vector<float> values;  // regression
  int64_t tokens = 0;         // language models: predicted ones
  double loss = 0;
  std::string generated;
};

class PredictionWriter {
 public:
  enum class Kind : uint8_t { kClasses, kValues, kTokens };
  struct Options {
    std::string format = "csv";  // csv | jsonl
    Kind kind = Kind::kClasses;
    std::vector<std::string> classes;
    int64_t values = 1;      // numbers of a row, for kValues
    bool files = false;      // rows have a file
    bool positions = false;  // rows are positions in a stream
    bool losses = true;      // kTokens: how likely a row is
    bool generated = false;
  };
  explicit PredictionWriter(Options options) : options_(std::move(options)) {}

  // Whether a row's tokens, loss and perplexity are written.
  bool losses() const { return options_.kind == Kind::kTokens && options_.losses; }
  std::string FileName() const { return "predictions." + options_.format; }
  // What comes before the first row: CSV's names.
  std::string Header() const;
  void Append(const RowAnswer& answer, std::string* out) const;

 private:
  void AppendCsv(const RowAnswer& answer, std::string* out) const;
  void AppendJson(const RowAnswer& answer, std::string* out) const;
  const char* RowName() const { return options_.positions ? "position" : "row"; }

  const Options options_;
};

// As a CSV field: quoted where it must be.
std::string CsvField(std::string_view text);

}  // namespace lepton::worker
