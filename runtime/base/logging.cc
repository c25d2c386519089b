#include "runtime/base/logging.h"

#include <unistd.h>

#include <cstdio>

#include "runtime/base/clock.h"

namespace lepton {
namespace {
std::string& Role() {
  static std::string role = "lepton";
  return role;
}

// Writes whole lines with one write(2), so that lines of several processes never mix.
class StderrSink final : public google::LogSink {
 public:
  void send(google::LogSeverity severity, const char*, const char* base_filename, int line,
            const google::LogMessageTime&, const char* message, size_t length) override {
    char when[32];
    const std::string_view stamp = FormatWallMs(RealClock().WallMs(), when);
    std::string text;
    text.reserve(length + 96);
    text += "IWEF"[severity];
    text += ' ';
    text += stamp;
    text += ' ';
    text += Role();
    text += '[' + std::to_string(::getpid()) + "] ";
    text += base_filename;
    text += ':' + std::to_string(line) + "] ";
    text.append(message, length);
    text += '\n';
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
  }
};
}  // namespace

void InitLogging(const LoggingOptions& options) {
  static StderrSink sink;
  static bool initialised = false;
  Role() = options.role;
  FLAGS_minloglevel = options.min_level;
  FLAGS_v = options.verbosity;
  if (initialised) return;
  initialised = true;
  FLAGS_logtostderr = false;
  FLAGS_alsologtostderr = false;
  FLAGS_stderrthreshold = google::GLOG_FATAL;
  google::InitGoogleLogging("lepton");
  for (int severity = 0; severity < google::NUM_SEVERITIES; ++severity) {
    google::SetLogDestination(static_cast<google::LogSeverity>(severity), "");
  }
  google::AddLogSink(&sink);
}

}  // namespace lepton
