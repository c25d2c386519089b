// What people and scripts see: aligned tables on a terminal, JSON or YAML on request.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/json.h"

namespace lepton::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> headers) : headers_(std::move(headers)) {}
  void Row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Columns padded to their widest cell, two spaces between; columns of numbers flush right.
  std::string ToString() const;

 private:
  std::vector<std::string> headers_;
  std::vector<std::vector<std::string>> rows_;
};

// "json" or "yaml"; the document as text with a final newline.
std::string Document(const nlohmann::json& value, const std::string& format);

// To standard output: the document, or with format "table" the line.
void PrintAnswer(const nlohmann::json& value, const std::string& format, const std::string& line);

// A field as text: "-" when absent or null; `path` may go through objects with dots.
std::string Text(const nlohmann::json& value, const std::string& path);
double Number(const nlohmann::json& value, const std::string& path, double fallback = 0);

// The entries of an object's member, for range-for; none when it is absent. (nlohmann's items() of
// a temporary would dangle.)
auto Items(const nlohmann::json& value, const std::string& member)
    -> decltype(std::declval<const nlohmann::json&>().items());

std::string Fixed(double value, int digits);
std::string Percent(double ratio);                  // 0.9722 -> "97.22%"
std::string Age(int64_t since_ms, int64_t now_ms);  // "3m12s"
std::string Bytes(double bytes);                    // "1.5 MiB"

// True when standard error is a terminal and NO_COLOR is unset.
bool ColorWanted();
// One line that is rewritten in place on a terminal; elsewhere one is printed every 5 s, so that
// what is over sooner prints none.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();  // clears the line
  void Show(const std::string& text);
  // Clears the line, so that something else can be printed.
  void Clear();

 private:
  bool terminal_;
  int64_t last_ms_;
  std::string shown_;
};
// "step 120/580  loss 0.0312  validation/accuracy 0.9722  51.2k samples/s  ETA 3s  2 workers" of a
// job.
std::string ProgressText(const nlohmann::json& job);

}  // namespace lepton::cli
