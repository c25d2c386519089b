#include "storage/datasets/picture_names.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace lepton::storage {
namespace {

std::string LowerSuffix(const std::string& path) {
  const size_t dot = path.rfind('.');
  if (dot == path.npos || path.find('/', dot) != path.npos) return "";
  std::string suffix = path.substr(dot);
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return suffix;
}

// Hidden files and what operating systems leave behind.
bool IsHidden(const std::string& path) {
  return path.starts_with('.') || path.find("/.") != path.npos || path.starts_with("__MACOSX/") ||
         path.find("/__MACOSX/") != path.npos;
}

}  // namespace

Result<bool> IsPictureName(const std::string& path) {
  if (IsHidden(path)) return false;
  const std::string suffix = LowerSuffix(path);
  static const std::set<std::string> foreign = {".gif",  ".bmp",  ".webp", ".tif", ".tiff",
                                                ".heic", ".avif", ".jp2",  ".ppm"};
  if (foreign.contains(suffix)) {
    return InvalidArgument(path + ": only PNG and JPEG can be read: convert it");
  }
  return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg";
}

}  // namespace lepton::storage
