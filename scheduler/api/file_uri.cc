#include "scheduler/api/file_uri.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "storage/datasets/byte_source.h"

namespace lepton::api {
namespace {

namespace fs = std::filesystem;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Result<std::string> PercentDecode(std::string_view field, std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? HexValue(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexValue(text[i + 2]) : -1;
    if (high < 0 || low < 0)
      return InvalidArgument(fmt::format("{}: a % without two hex digits", field));
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  if (out.find('\0') != std::string::npos) {
    return InvalidArgument(fmt::format("{}: a zero byte in the path", field));
  }
  return out;
}

// Both canonical. A root of "/" contains everything.
bool IsWithin(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

bool IsAllowed(const fs::path& path, const FileRoots& roots) {
  std::error_code error;
  const fs::path closed = roots.but_not.empty() ? fs::path() : fs::canonical(roots.but_not, error);
  const bool guarded = !roots.but_not.empty() && !error && IsWithin(path, closed);
  return std::any_of(roots.folders.begin(), roots.folders.end(), [&](const fs::path& root) {
    const fs::path canonical = fs::canonical(root, error);
    if (error || !IsWithin(path, canonical)) return false;
    return !guarded || (canonical != closed && IsWithin(canonical, closed));
  });
}

std::string Listed(const FileRoots& roots) {
  std::string text;
  for (const auto& root : roots.folders) text += (text.empty() ? "" : ", ") + root.string();
  return roots.but_not.empty() ? text : text + ", but not " + roots.but_not.string();
}

}  // namespace

Result<fs::path> PathOfFileUri(std::string_view field, std::string_view uri) {
  constexpr std::string_view kScheme = "file://";
  if (uri.substr(0, kScheme.size()) != kScheme) {
    return InvalidArgument(
        fmt::format("{}: \"{}\" is not a file:///absolute/path URI", field, uri));
  }
  std::string_view rest = uri.substr(kScheme.size());
  constexpr std::string_view kLocalhost = "localhost";
  if (rest.substr(0, kLocalhost.size()) == kLocalhost) rest.remove_prefix(kLocalhost.size());
  if (rest.empty() || rest[0] != '/') {
    return InvalidArgument(
        fmt::format("{}: \"{}\" names another host or a relative path: write file:///absolute/path",
                    field, uri));
  }
  LEPTON_ASSIGN_OR_RETURN(std::string path, PercentDecode(field, rest));
  return fs::path(std::move(path));
}

Result<ConfinedFile> OpenConfined(std::string_view field, std::string_view uri,
                                  const FileRoots& roots) {
  LEPTON_ASSIGN_OR_RETURN(const fs::path path, PathOfFileUri(field, uri));
  const Status outside = PermissionDenied(fmt::format(
      "{}: {} is outside of the folders that specs may read ({}): move the file there, upload it "
      "with `lepton data add`, or start the coordinator with --file-roots",
      field, path.string(), Listed(roots)));
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  if (error || !IsAllowed(real, roots)) return outside;

  // A link could be swapped between the check above and the open, so the file that was opened is
  // checked again. O_NONBLOCK: opening a FIFO must not hang.
  ConfinedFile file;
  file.path = path.string();
  file.fd.Reset(::open(real.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!file.fd.valid()) return ErrnoStatus(errno, file.path).WithContext(field);
  const fs::path opened = fs::read_symlink(fmt::format("/proc/self/fd/{}", file.fd.get()), error);
  if (error || !IsAllowed(opened, roots)) return outside;
  struct stat info {};
  if (::fstat(file.fd.get(), &info) != 0) return ErrnoStatus(errno, "fstat").WithContext(field);
  file.folder = S_ISDIR(info.st_mode);
  if (!file.folder && !S_ISREG(info.st_mode)) {
    return InvalidArgument(
        fmt::format("{}: {} is neither a regular file nor a folder", field, file.path));
  }
  return file;
}

Result<std::string> ReadConfinedFile(std::string_view field, std::string_view uri,
                                     const FileRoots& roots, size_t limit_bytes) {
  LEPTON_ASSIGN_OR_RETURN(ConfinedFile file, OpenConfined(field, uri, roots));
  if (file.folder) {
    return InvalidArgument(fmt::format("{}: {} is a folder, not a file", field, file.path));
  }
  Result<storage::ByteSource> source = storage::ByteSource::FromFile(std::move(file.fd));
  if (!source.ok()) return source.status().WithContext(field);
  Result<std::string> bytes = source->ReadAll(limit_bytes);
  if (!bytes.ok()) return bytes.status().WithContext(file.path).WithContext(field);
  return bytes;
}

}  // namespace lepton::api
