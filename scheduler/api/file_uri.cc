#include "scheduler/api/file_uri.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "runtime/base/file.h"

namespace lepton::api {
namespace {

namespace fs = std::filesystem;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? HexValue(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexValue(text[i + 2]) : -1;
    if (high < 0 || low < 0) return InvalidArgument("dataset.uri: a % without two hex digits");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  if (out.find('\0') != std::string::npos) {
    return InvalidArgument("dataset.uri: a zero byte in the path");
  }
  return out;
}

// Both canonical. A root of "/" contains everything.
bool IsWithin(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

bool IsWithinAny(const fs::path& path, const std::vector<fs::path>& roots) {
  return std::any_of(roots.begin(), roots.end(), [&](const fs::path& root) {
    std::error_code error;
    const fs::path canonical = fs::canonical(root, error);
    return !error && IsWithin(path, canonical);
  });
}

std::string Listed(const std::vector<fs::path>& roots) {
  std::string text;
  for (const auto& root : roots) text += (text.empty() ? "" : ", ") + root.string();
  return text;
}

}  // namespace

Result<fs::path> PathOfFileUri(std::string_view uri) {
  constexpr std::string_view kScheme = "file://";
  if (uri.substr(0, kScheme.size()) != kScheme) {
    return InvalidArgument(
        fmt::format("dataset.uri: \"{}\" is not a file:///absolute/path URI", uri));
  }
  std::string_view rest = uri.substr(kScheme.size());
  constexpr std::string_view kLocalhost = "localhost";
  if (rest.substr(0, kLocalhost.size()) == kLocalhost) rest.remove_prefix(kLocalhost.size());
  if (rest.empty() || rest[0] != '/') {
    return InvalidArgument(fmt::format(
        "dataset.uri: \"{}\" names another host or a relative path: write file:///absolute/path",
        uri));
  }
  LEPTON_ASSIGN_OR_RETURN(std::string path, PercentDecode(rest));
  return fs::path(std::move(path));
}

Result<std::string> ReadConfinedFile(std::string_view uri, const std::vector<fs::path>& roots,
                                     size_t limit_bytes) {
  LEPTON_ASSIGN_OR_RETURN(const fs::path path, PathOfFileUri(uri));
  const Status outside = PermissionDenied(fmt::format(
      "dataset.uri: {} is outside of the folders that specs may read ({}): move the file there, "
      "upload it with `lepton data add`, or start the coordinator with --file-roots",
      path.string(), Listed(roots)));
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  if (error || !IsWithinAny(real, roots)) return outside;

  // A link could be swapped between the check above and the open, so the file that was opened is
  // checked again. O_NONBLOCK: opening a FIFO must not hang.
  UniqueFd fd(::open(real.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!fd.valid()) return ErrnoStatus(errno, path.string()).WithContext("dataset.uri");
  const fs::path opened = fs::read_symlink(fmt::format("/proc/self/fd/{}", fd.get()), error);
  if (error || !IsWithinAny(opened, roots)) return outside;
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "dataset.uri: fstat");
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(fmt::format("dataset.uri: {} is not a regular file", path.string()));
  }
  if (static_cast<uint64_t>(info.st_size) > limit_bytes) {
    return ResourceExhausted(fmt::format("dataset.uri: {} has {} bytes; the limit is {}",
                                         path.string(), info.st_size, limit_bytes));
  }
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, path.string()).WithContext("dataset.uri");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

}  // namespace lepton::api
