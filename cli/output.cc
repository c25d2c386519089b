#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/config.h"

namespace lepton::cli {
namespace {
using nlohmann::json;

bool LooksNumeric(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.,%-+eE") == std::string::npos;
}

// Characters, of UTF-8.
size_t Width(const std::string& cell) {
  return static_cast<size_t>(
      std::count_if(cell.begin(), cell.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// Of the terminal; what is longer would wrap, and not be overwritten.
size_t TerminalColumns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : SIZE_MAX;
}

// Whether every reader of YAML, also of 1.1, takes a text for one without quotes: it begins like a
// word, and is none that means something else.
bool PlainInYaml(const std::string& text) {
  constexpr std::string_view kWords[] = {"y",   "yes",  "n",     "no",  "on",
                                         "off", "true", "false", "null"};
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto harmless = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') ||
           std::string_view(" _-./@()+,;").find(c) != std::string_view::npos;
  };
  if (text.empty() || !letter(text[0]) || text.back() == ' ') return false;
  if (!std::all_of(text.begin(), text.end(), harmless)) return false;
  std::string small = text;
  std::transform(small.begin(), small.end(), small.begin(),
                 [](char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(std::begin(kWords), std::end(kWords), small) == std::end(kWords);
}

void EmitText(YAML::Emitter& out, const std::string& text) {
  if (PlainInYaml(text)) {
    out << text;
  } else {
    out << YAML::DoubleQuoted << text;
  }
}

// YAML 1.1 takes 1e-05 for a text: it wants a point.
std::string NumberInYaml(const json& value) {
  std::string text = value.dump();
  const size_t exponent = text.find('e');
  if (value.is_number_float() && exponent != std::string::npos &&
      text.find('.') == std::string::npos) {
    text.insert(exponent, ".0");
  }
  return text;
}

void Emit(YAML::Emitter& out, const json& value) {
  if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      out << YAML::Key;
      EmitText(out, key);
      out << YAML::Value;
      Emit(out, item);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    out << YAML::BeginSeq;
    for (const json& item : value) Emit(out, item);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    EmitText(out, value.get<std::string>());
  } else {
    out << NumberInYaml(value);
  }
}

const json* Find(const json& value, const std::string& path) {
  const json* at = &value;
  size_t begin = 0;
  while (begin <= path.size()) {
    if (!at->is_object()) return nullptr;
    // A key may itself hold dots or slashes: the whole rest is tried first.
    if (const auto rest = at->find(path.substr(begin)); rest != at->end()) return &*rest;
    const size_t dot = path.find('.', begin);
    if (dot == std::string::npos) return nullptr;
    const auto it = at->find(path.substr(begin, dot - begin));
    if (it == at->end()) return nullptr;
    at = &*it;
    begin = dot + 1;
  }
  return at;
}
}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (const std::string& header : headers_) widths.push_back(Width(header));
  std::vector<bool> numeric(headers_.size(), true);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], Width(row[i]));
      numeric[i] = numeric[i] && LooksNumeric(row[i]);
    }
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells, bool header) {
    std::string text;
    for (size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
      const std::string padding(widths[i] - Width(cells[i]), ' ');
      const bool right = !header && numeric[i];
      text += (i > 0 ? "  " : "") + (right ? padding + cells[i] : cells[i] + padding);
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out += text + "\n";
  };
  line(headers_, true);
  for (const auto& row : rows_) line(row, false);
  return out;
}

std::string Document(const json& value, const std::string& format) {
  if (format != "yaml") return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  YAML::Emitter out;
  Emit(out, value);
  return std::string(out.c_str()) + "\n";
}

void PrintAnswer(const json& value, const std::string& format, const std::string& line) {
  std::fputs((format == "table" ? line + "\n" : Document(value, format)).c_str(), stdout);
}

std::string Text(const json& value, const std::string& path) {
  const json* found = Find(value, path);
  if (found == nullptr || found->is_null()) return "-";
  if (found->is_string())
    return found->get<std::string>().empty() ? "-" : found->get<std::string>();
  if (found->is_number_float()) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.6g", found->get<double>());
    return text;
  }
  return found->dump();
}

double Number(const json& value, const std::string& path, double fallback) {
  const json* found = Find(value, path);
  return found != nullptr && found->is_number() ? found->get<double>() : fallback;
}

auto Items(const json& value, const std::string& member)
    -> decltype(std::declval<const json&>().items()) {
  static const json kNone = json::object();
  const json* found = Find(value, member);
  return (found != nullptr && found->is_object() ? *found : kNone).items();
}

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string Percent(double ratio) {
  return Fixed(100 * ratio, 2) + "%";
}

std::string Age(int64_t since_ms, int64_t now_ms) {
  if (since_ms <= 0) return "-";
  const int64_t seconds = std::max<int64_t>(0, (now_ms - since_ms) / 1000);
  return FormatDuration(std::chrono::seconds(seconds));
}

std::string Bytes(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return Fixed(bytes, unit == 0 ? 0 : 1) + " " + units[unit];
}

bool ColorWanted() {
  const char* no_color = std::getenv("NO_COLOR");
  return ::isatty(STDERR_FILENO) == 1 && (no_color == nullptr || *no_color == '\0');
}

ProgressLine::ProgressLine()
    : terminal_(::isatty(STDERR_FILENO) == 1), last_ms_(RealClock().WallMs()) {}

ProgressLine::~ProgressLine() {
  Clear();
}

void ProgressLine::Show(const std::string& text) {
  const int64_t now = RealClock().WallMs();
  if (terminal_) {
    // Its texts are ASCII, but for the job's name.
    const std::string shown = text.substr(0, std::min(text.size(), TerminalColumns() - 1));
    std::fprintf(stderr, "\r%s\033[K", shown.c_str());
    std::fflush(stderr);
    shown_ = text;
  } else if (text != shown_ && now - last_ms_ >= 5000) {
    std::fprintf(stderr, "%s\n", text.c_str());
    shown_ = text;
    last_ms_ = now;
  }
}

void ProgressLine::Clear() {
  if (terminal_ && !shown_.empty()) std::fputs("\r\033[K", stderr);
  shown_.clear();
}

std::string ProgressText(const json& job) {
  const double step = Number(job, "progress.step");
  const double total = Number(job, "progress.total_steps");
  const double rate = Number(job, "progress.samples_per_second");
  std::string text = Text(job, "name") + " " + Text(job, "state");
  if (const std::string phase = Text(job, "progress.phase"); phase != "-" && !phase.empty()) {
    text += "  " + phase + " " + Fixed(100 * Number(job, "progress.phase_done"), 0) + "%";
  }
  const bool rows = job.contains("shards"), trials = job.contains("search");
  if (trials) {
    text += "  trial " + Fixed(step, 0) + "/" + Fixed(total, 0);
    if (Text(job, "search.best_score") != "-") {
      text +=
          "  best " + Text(job, "search.metric") + " " + Fixed(Number(job, "search.best_score"), 4);
    }
  } else if (total > 0) {
    text += (rows ? "  row " : "  step ") + Fixed(step, 0) + "/" + Fixed(total, 0);
  }
  for (const char* key : {"train/loss", "validation/accuracy", "validation/loss"}) {
    const double value = Number(job, std::string("metrics.") + key, NAN);
    if (!std::isnan(value)) text += std::string("  ") + key + " " + Fixed(value, 4);
  }
  if (rate > 0) text += "  " + Fixed(rate, 0) + (rows ? " rows/s" : " samples/s");
  if (const double eta = Number(job, "shards.eta_seconds"); rows && eta > 0) {
    text += "  ETA " + FormatDuration(std::chrono::seconds(static_cast<int64_t>(eta) + 1));
  } else if (const double batch = Number(job, "spec.batch_size");
             Text(job, "state") == "RUNNING" && !trials && batch > 0 && rate > 0 && total > step) {
    // At the pace of now: the time since the job began holds pauses and recoveries.
    text += "  ETA " + FormatDuration(std::chrono::seconds(
                           static_cast<int64_t>((total - step) * batch / rate) + 1));
  }
  // Of the group that trains: the tasks are those of the past too.
  const auto workers = static_cast<size_t>(Number(job, "group.ranks"));
  if (workers > 0) text += "  " + std::to_string(workers) + (workers == 1 ? " worker" : " workers");
  const std::string reason = Text(job, "reason");
  if (Text(job, "state") == "QUEUED" && reason != "-") text += "  (" + reason + ")";
  return text;
}

}  // namespace lepton::cli
