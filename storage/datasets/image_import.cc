// Pictures of a folder or an archive: each is decoded once, so that what is stored can be trained
// on, and its file goes into one object with all others.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/utf8.h"
#include "runtime/formats/image/image.h"
#include "storage/datasets/file_walk.h"
#include "storage/datasets/formats.h"
#include "storage/datasets/image_index.h"
#include "storage/datasets/picture_names.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

constexpr int64_t kMaxPictures = 50'000'000;

struct Range {
  int64_t min = INT64_MAX, max = 0;
  double sum = 0;
  void Add(int64_t value) {
    min = std::min(min, value);
    max = std::max(max, value);
    sum += static_cast<double>(value);
  }
  nlohmann::json ToJson(int64_t count) const {
    return {{"min", min}, {"mean", sum / static_cast<double>(count)}, {"max", max}};
  }
};

class ImageImporter final : public FileVisitor {
 public:
  ImageImporter(ObjectStore::Writer& files, const ImportOptions& options)
      : files_(files), options_(options) {}

  Result<bool> Wants(const std::string& path, uint64_t bytes) override {
    LEPTON_ASSIGN_OR_RETURN(const bool picture, IsPictureName(path));
    if (!picture) {
      ++skipped_;
      return false;
    }
    if (bytes > options_.limits.picture_bytes) {
      return InvalidArgument(path + ": has " + std::to_string(bytes) + " bytes; the limit is " +
                             std::to_string(options_.limits.picture_bytes));
    }
    return true;
  }

  Status Visit(const std::string& path, std::string bytes) override {
    if (InvalidUtf8At(path)) {
      return InvalidArgument(ReplaceInvalidUtf8(path) + ": the name is not UTF-8: rename it");
    }
    if (path.find('/') == path.npos) {
      return InvalidArgument(path +
                             ": lies outside of the classes: put each picture into the "
                             "subfolder of its class");
    }
    const Result<image::Info> info = image::ReadInfo(bytes);
    if (!info.ok()) return info.status().WithContext(path);
    if (const auto decoded = image::Decode(bytes, info->channels); !decoded.ok()) {
      return decoded.status().WithContext(path);
    }
    if (index_.size() >= kMaxPictures) return ResourceExhausted("more than 50 million pictures");
    if (files_.size() + bytes.size() > options_.limits.stream_bytes) {
      return ResourceExhausted(path + ": the pictures have more than " +
                               std::to_string(options_.limits.stream_bytes) + " bytes together");
    }
    LEPTON_RETURN_IF_ERROR(files_.Append(bytes));
    index_.ends.push_back(static_cast<int64_t>(files_.size()));
    index_.widths.push_back(static_cast<int32_t>(info->width));
    index_.heights.push_back(static_cast<int32_t>(info->height));
    index_.paths += path;
    index_.path_ends.push_back(static_cast<int64_t>(index_.paths.size()));
    width_.Add(info->width);
    height_.Add(info->height);
    if (info->channels == 1) ++grey_;
    return Status::Ok();
  }

  Status Progress(uint64_t done, uint64_t total) override {
    return ReportProgress(options_, "reading pictures", done, total);
  }

  // The manifest without its objects, and the index with its labels.
  Result<DatasetManifest> Finish() {
    if (index_.size() == 0) {
      return InvalidArgument("there are no PNG or JPEG files in subfolders, one a class");
    }
    DatasetManifest manifest;
    manifest.kind = DatasetKind::kImages;
    manifest.rows = index_.size();
    const std::vector<std::string> names = ClassNames();
    std::map<std::string, int64_t> counts;
    for (const std::string& name : names) ++counts[name];
    for (const auto& [name, count] : counts) manifest.classes.push_back(name);
    for (const std::string& name : names) {
      const auto at = std::lower_bound(manifest.classes.begin(), manifest.classes.end(), name);
      index_.labels.push_back(static_cast<int32_t>(at - manifest.classes.begin()));
    }
    nlohmann::json classes = nlohmann::json::array();
    for (const auto& [name, count] : counts) {
      classes.push_back({{"value", name}, {"count", count}});
    }
    const nlohmann::json profile = {{"rows", manifest.rows},
                                    {"bytes", files_.size()},
                                    {"width", width_.ToJson(manifest.rows)},
                                    {"height", height_.ToJson(manifest.rows)},
                                    {"grey", grey_},
                                    {"files_skipped", skipped_},
                                    {"classes", std::move(classes)}};
    manifest.profile_json = DumpManifest(profile);
    return manifest;
  }
  const ImageIndex& index() const { return index_; }

 private:
  // The first folder of each path, or the second when all share the first: an archive often holds
  // its files under one folder of its own name.
  std::vector<std::string> ClassNames() const {
    const auto part = [](std::string_view path, int skip) {
      for (; skip > 0; --skip) path.remove_prefix(path.find('/') + 1);
      const size_t slash = path.find('/');
      return slash == path.npos ? std::string() : std::string(path.substr(0, slash));
    };
    bool shared = true;
    for (int64_t i = 0; i < index_.size() && shared; ++i) {
      shared =
          part(index_.Path(i), 0) == part(index_.Path(0), 0) && !part(index_.Path(i), 1).empty();
    }
    std::vector<std::string> names;
    for (int64_t i = 0; i < index_.size(); ++i)
      names.push_back(part(index_.Path(i), shared ? 1 : 0));
    return names;
  }

  ObjectStore::Writer& files_;
  const ImportOptions& options_;
  ImageIndex index_;
  Range width_, height_;
  int64_t grey_ = 0, skipped_ = 0;
};

template <typename Walk>
Result<DatasetManifest> ImportImages(ObjectStore& objects, const ImportOptions& options,
                                     const Walk& walk) {
  LEPTON_ASSIGN_OR_RETURN(const auto files, objects.NewObject());
  ImageImporter importer(*files, options);
  LEPTON_RETURN_IF_ERROR(walk(importer));
  LEPTON_ASSIGN_OR_RETURN(DatasetManifest manifest, importer.Finish());
  LEPTON_ASSIGN_OR_RETURN(const std::string index, ImageIndexToSafetensors(importer.index()));
  LEPTON_ASSIGN_OR_RETURN(manifest.table, objects.Put(index));
  LEPTON_ASSIGN_OR_RETURN(manifest.source, files->Finish());
  return manifest;
}

}  // namespace

Result<DatasetManifest> ImportImageArchive(ObjectStore& objects, ByteSource& source,
                                           const ImportOptions& options) {
  return ImportImages(objects, options,
                      [&](FileVisitor& visitor) { return WalkArchive(source, visitor); });
}

Result<DatasetManifest> ImportImageFolder(ObjectStore& objects, UniqueFd folder,
                                          const ImportOptions& options) {
  return ImportImages(objects, options,
                      [&](FileVisitor& visitor) { return WalkFolder(std::move(folder), visitor); });
}

}  // namespace lepton::storage
