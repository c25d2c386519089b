// Request targets: percent-encoding (RFC 3986) and query strings.
#include <cctype>

#include "runtime/http/http.h"

namespace lepton::http {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Status ParseQuery(std::string_view text, std::map<std::string, std::string>& query) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto key = PercentDecode(pair.substr(0, equals), true);
    const auto value = PercentDecode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!key || !value) return InvalidArgument("query: broken percent-escape");
    query[*key] = *value;
  }
  return {};
}

}  // namespace

std::optional<std::string> PercentDecode(std::string_view text, bool plus) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus) {
      out += ' ';
    } else if (text[i] == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string PercentEncode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool ascii = byte < 0x80;
    if (ascii && (std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~')) {
      out += c;
    } else {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

std::string FileUri(const std::filesystem::path& path) {
  std::string uri = "file://";
  for (const auto& part : path.relative_path()) uri += "/" + PercentEncode(part.string());
  return uri;
}

Status ParseTarget(Request& request) {
  const std::string_view target = request.target;
  if (target.empty() || target[0] != '/') {
    return InvalidArgument("target: must be a path that begins with '/'");
  }
  const size_t end = std::min(target.find_first_of("?#"), target.size());
  auto path = PercentDecode(target.substr(0, end));
  if (!path) return InvalidArgument("target: broken percent-escape in the path");
  if (path->find('\0') != std::string::npos) return InvalidArgument("target: NUL in the path");
  request.path = std::move(*path);
  request.query.clear();
  if (end == target.size() || target[end] == '#') return {};
  std::string_view query = target.substr(end + 1);
  return ParseQuery(query.substr(0, query.find('#')), request.query);
}

}  // namespace lepton::http
