// Server-sent events (HTML Living Standard, section 9.2.6), as far as a client of ours needs them.
#include "runtime/http/client.h"

namespace lepton::http {
namespace {

void ReadField(std::string_view line, SseParser::Event& event, bool& any) {
  if (line.empty() || line[0] == ':') return;  // a comment: keep-alive
  const size_t colon = std::min(line.find(':'), line.size());
  const std::string_view name = line.substr(0, colon);
  std::string_view value = line.substr(std::min(colon + 1, line.size()));
  if (!value.empty() && value[0] == ' ') value.remove_prefix(1);
  any = true;
  if (name == "id") {
    event.id = value;
  } else if (name == "event") {
    event.event = value;
  } else if (name == "data") {
    event.data += value;
    event.data += '\n';
  }
}

// The end of the first event in `buffer` (past its blank line), or npos.
size_t EventEnd(std::string_view buffer) {
  for (size_t newline = buffer.find('\n'); newline != std::string_view::npos;
       newline = buffer.find('\n', newline + 1)) {
    const std::string_view rest = buffer.substr(newline + 1);
    if (rest.starts_with("\n")) return newline + 2;
    if (rest.starts_with("\r\n")) return newline + 3;
  }
  return std::string_view::npos;
}

}  // namespace

std::vector<SseParser::Event> SseParser::Feed(std::string_view bytes) {
  buffer_ += bytes;
  std::vector<Event> events;
  size_t consumed = 0;
  while (true) {
    const std::string_view rest = std::string_view(buffer_).substr(consumed);
    const size_t end = EventEnd(rest);
    if (end == std::string_view::npos) break;
    std::string_view block = rest.substr(0, end);
    Event event;
    bool any = false;
    while (!block.empty()) {
      const size_t newline = block.find('\n');
      std::string_view line = block.substr(0, newline);
      block.remove_prefix(newline + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      ReadField(line, event, any);
    }
    if (event.data.ends_with('\n')) event.data.pop_back();
    if (any) events.push_back(std::move(event));
    consumed += end;
  }
  buffer_.erase(0, consumed);
  return events;
}

}  // namespace lepton::http
