#include "worker/data/picture_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/thread_pool.h"
#include "runtime/formats/image/image.h"

namespace lepton::worker {
namespace {

constexpr int64_t kBytesAtOnce = 16 << 20;

Status WritePictures(const StoredImages& images, const ImageShape& shape, const PictureFit& fit,
                     const PrepareProgress& progress, int fd) {
  const int64_t count = images.index.size();
  const int64_t at_once = std::clamp<int64_t>(kBytesAtOnce / shape.size(), 1, 4096);
  for (int64_t first = 0; first < count; first += at_once) {
    progress("reading pictures", static_cast<uint64_t>(first), static_cast<uint64_t>(count));
    const int64_t rows = std::min(at_once, count - first);
    std::string bytes(rows * shape.size(), '\0');
    std::vector<Status> statuses(rows);
    ThreadPool::Compute().ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t picture = first + i;
        const auto pixels =
            PixelsOfFile(images.index.File(images.files->bytes(), picture), shape, fit);
        statuses[i] = pixels.status().WithContext(std::string(images.index.Path(picture)));
        if (pixels.ok()) std::copy(pixels->begin(), pixels->end(), &bytes[i * shape.size()]);
      }
    });
    for (Status& status : statuses) LEPTON_RETURN_IF_ERROR(std::move(status));
    LEPTON_RETURN_IF_ERROR(WriteAll(fd, bytes));
  }
  return Status::Ok();
}

}  // namespace

Result<StoredImages> LoadImages(const storage::ObjectStore& objects,
                                const storage::DatasetManifest& manifest) {
  StoredImages images;
  LEPTON_ASSIGN_OR_RETURN(MappedFile files, objects.Map(manifest.source, /*verify=*/false));
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(manifest.table));
  auto index = storage::ImageIndexFromSafetensors(bytes, static_cast<int64_t>(files.size()),
                                                  static_cast<int64_t>(manifest.classes.size()));
  if (!index.ok()) return DataLoss(index.status().message());
  images.index = *std::move(index);
  images.files = std::make_shared<const MappedFile>(std::move(files));
  return images;
}

Result<std::vector<uint8_t>> PixelsOfFile(std::string_view file, const ImageShape& shape,
                                          const PictureFit& fit) {
  LEPTON_ASSIGN_OR_RETURN(const image::Image decoded, image::Decode(file, shape.channels));
  image::Box box{0, 0, static_cast<double>(decoded.width), static_cast<double>(decoded.height)};
  if (fit.how == "crop") box = image::CentredBox(decoded, shape.width, shape.height);
  if (fit.how == "shortest") box = image::MiddleBox(decoded, shape.width, shape.height, fit.edge);
  const image::Image sized = image::Resize(
      decoded, shape.width, shape.height, box,
      fit.resample == "bicubic" ? image::Resampling::kBicubic : image::Resampling::kBilinear);
  std::vector<uint8_t> planes(shape.size());
  for (int64_t channel = 0; channel < shape.channels; ++channel) {
    for (int64_t i = 0; i < shape.plane(); ++i) {
      planes[channel * shape.plane() + i] = sized.pixels[i * shape.channels + channel];
    }
  }
  return planes;
}

Result<std::shared_ptr<const PixelStore>> PixelsOfImages(
    const StoredImages& images, const storage::DatasetManifest& manifest, const ImageShape& shape,
    const PictureFit& fit, DerivedFiles& derived, const PrepareProgress& progress) {
  const std::string recipe =
      fmt::format("pictures 1 {} {} {}x{}x{} {}", manifest.source, manifest.table, shape.channels,
                  shape.height, shape.width, fit.how) +
      (fit.how == "shortest" ? fmt::format(" {}", fit.edge) : "") +
      (fit.resample == "bilinear" ? "" : " " + fit.resample);
  LEPTON_ASSIGN_OR_RETURN(const auto file, derived.Open(recipe, [&](int fd) {
    return WritePictures(images, shape, fit, progress, fd);
  }));
  if (static_cast<int64_t>(file->size()) != images.index.size() * shape.size()) {
    return DataLoss("a file of pictures has another size than its pictures");
  }
  return PixelStore::Bytes(file, 0, shape);
}

}  // namespace lepton::worker
