// A dataset's pictures decoded and brought to one size, as a derived file of bytes
// [pictures, channels, height, width].
// Threads: as of DerivedFiles.
#pragma once

#include "storage/datasets/dataset_manifest.h"
#include "storage/datasets/image_index.h"
#include "worker/data/derived_file.h"
#include "worker/data/image_examples.h"
#include "worker/data/token_files.h"

namespace lepton::worker {

struct StoredImages {
  storage::ImageIndex index;
  std::shared_ptr<const MappedFile> files;
};
// kDataLoss for an index that does not fit its files.
Result<StoredImages> LoadImages(const storage::ObjectStore& objects,
                                const storage::DatasetManifest& manifest);

// How pictures get their size: as storage::ModelInput says.
struct PictureFit {
  std::string how = "stretch";
  int64_t edge = 0;
  std::string resample = "bilinear";
};

// kInvalidArgument names the picture that cannot be read.
Result<std::shared_ptr<const PixelStore>> PixelsOfImages(
    const StoredImages& images, const storage::DatasetManifest& manifest, const ImageShape& shape,
    const PictureFit& fit, DerivedFiles& derived, const PrepareProgress& progress);

// One picture as the store has it: [channels, height, width].
Result<std::vector<uint8_t>> PixelsOfFile(std::string_view file, const ImageShape& shape,
                                          const PictureFit& fit);

}  // namespace lepton::worker
