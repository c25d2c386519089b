#include "worker/log_lines.h"

#include <utility>

namespace lepton::worker {
namespace {

constexpr Duration kWindow = std::chrono::seconds(1);

// Length of the valid UTF-8 sequence at the start of `text`; 0 if there is none.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first != 0 && first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and beyond U+10FFFF.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return length;
}

}  // namespace

std::string ToValidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) {
      valid += '?';
      text.remove_prefix(1);
    } else {
      valid += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return valid;
}

void LogLines::Append(int stream, std::string_view bytes, MonotonicTime now) {
  std::string& partial = partial_[stream];
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (!cut_[stream]) {
      const size_t room = kMaxLineBytes - partial.size();
      partial += piece.substr(0, room);
      if (piece.size() > room) {
        AddLine(std::exchange(partial, {}) + " [cut]", now);
        cut_[stream] = true;
      }
    }
    if (end == std::string_view::npos) return;
    if (!std::exchange(cut_[stream], false)) AddLine(std::exchange(partial, {}), now);
    bytes.remove_prefix(end + 1);
  }
}

void LogLines::Finish(int stream, MonotonicTime now) {
  if (!partial_[stream].empty()) AddLine(std::exchange(partial_[stream], {}), now);
  cut_[stream] = false;
}

std::vector<std::string> LogLines::Take(MonotonicTime now, bool last) {
  EndWindow(now, last);
  return std::exchange(lines_, {});
}

void LogLines::AddLine(std::string_view line, MonotonicTime now) {
  EndWindow(now, false);
  if (in_window_ >= limit_) {
    ++dropped_;
    return;
  }
  ++in_window_;
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  lines_.push_back(ToValidUtf8(line));
}

void LogLines::EndWindow(MonotonicTime now, bool last) {
  if (!last && now - window_start_ < kWindow) return;
  if (dropped_ > 0) {
    lines_.push_back("[" + std::to_string(dropped_) + " lines dropped: more than " +
                     std::to_string(limit_) + " a second]");
  }
  dropped_ = 0;
  in_window_ = 0;
  window_start_ = now;
}

}  // namespace lepton::worker
