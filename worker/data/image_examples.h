// Pictures of one size, channel by channel, normalised as they are read: from a mapped file of
// bytes, or from the columns of a table.
// Threads: as of Examples.
#pragma once

#include <array>

#include "runtime/base/mapped_file.h"
#include "worker/data/examples.h"

namespace lepton::worker {

struct ImageShape {
  int64_t channels = 0, height = 0, width = 0;
  int64_t plane() const { return height * width; }
  int64_t size() const { return channels * plane(); }
};

// Pixels [pictures, channels, height, width] on their raw scale: bytes, or numbers.
class PixelStore {
 public:
  // Bytes from `begin` in the file; a byte b stands for b / 255.
  static std::shared_ptr<const PixelStore> Bytes(std::shared_ptr<const MappedFile> file,
                                                 uint64_t begin, const ImageShape& shape);
  static std::shared_ptr<const PixelStore> Numbers(std::vector<float> pixels,
                                                   const ImageShape& shape);

  const ImageShape& shape() const { return shape_; }
  bool bytes() const { return file_ != nullptr; }
  // One plane of a picture; of the kind that the store has.
  const uint8_t* BytePlane(int64_t picture, int64_t channel) const;
  const float* NumberPlane(int64_t picture, int64_t channel) const;

 private:
  PixelStore() = default;
  ImageShape shape_;
  std::shared_ptr<const MappedFile> file_;
  uint64_t begin_ = 0;
  std::vector<float> numbers_;
};

// (raw - mean) / scale, a channel.
struct PixelScale {
  std::vector<double> mean, scale;
};
// Over these pictures. A channel that is the same everywhere has scale 1.
PixelScale MeasurePixels(const PixelStore& store, std::span<const int64_t> pictures);

// Training only; without flip and shift, pictures as they are.
struct Augmentation {
  bool flip = false;
  int64_t shift = 0;
  uint64_t seed = 0;
  bool any() const { return flip || shift > 0; }
};

class ImageExamples final : public Examples {
 public:
  // `row_numbers`: pictures of the store.
  ImageExamples(std::shared_ptr<const PixelStore> store, std::vector<int64_t> row_numbers,
                const PixelScale& scale, const Augmentation& augmentation = {});

  int64_t rows() const override { return static_cast<int64_t>(row_numbers_.size()); }
  Status Fill(uint64_t epoch, std::span<const int64_t> examples, BatchBuffer& out) const override;
  int64_t row_number(int64_t example) const override { return row_numbers_[example]; }
  int64_t example_bytes() const override { return store_->shape().size() * 4; }

 private:
  struct Placement {
    bool flip = false;
    int64_t down = 0, right = 0;  // by how much the picture moves
  };
  Placement Draw(uint64_t epoch, int64_t picture) const;
  void FillPlane(int64_t picture, int64_t channel, const Placement& place, float* out) const;

  const std::shared_ptr<const PixelStore> store_;
  const std::vector<int64_t> row_numbers_;
  const PixelScale scale_;
  const Augmentation augmentation_;
  std::vector<std::array<float, 256>> of_byte_;  // a channel: what a byte becomes
};

}  // namespace lepton::worker
