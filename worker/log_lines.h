// Cuts what a task writes to its standard output and error into log lines: valid UTF-8, at most
// kMaxLineBytes each, at most `lines_per_second`; what is beyond becomes one note.
// Threads: one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"

namespace lepton::worker {

inline constexpr size_t kMaxLineBytes = size_t{8} << 10;

class LogLines {
 public:
  explicit LogLines(int lines_per_second = 2000) : limit_(lines_per_second) {}

  // `stream`: 0 or 1; each has its own unfinished line.
  void Append(int stream, std::string_view bytes, MonotonicTime now);
  // The stream ended: its unfinished line is one.
  void Finish(int stream, MonotonicTime now);
  // The lines so far. A note about dropped ones comes when their second is over, or with `last`.
  std::vector<std::string> Take(MonotonicTime now, bool last = false);
  // There is something to take, now or at the end of this second.
  bool HasLines() const { return !lines_.empty() || dropped_ > 0; }

 private:
  void AddLine(std::string_view line, MonotonicTime now);
  void EndWindow(MonotonicTime now, bool last);

  const int limit_;
  std::string partial_[2];
  bool cut_[2] = {false, false};  // the rest of a line that was cut is skipped
  std::vector<std::string> lines_;
  MonotonicTime window_start_{};
  int in_window_ = 0;
  uint64_t dropped_ = 0;
};

// The text with every byte that is not part of valid UTF-8, and every NUL, replaced by '?'.
std::string ToValidUtf8(std::string_view text);

}  // namespace lepton::worker
