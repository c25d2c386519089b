#include "worker/data/image_examples.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/progress.h"
#include "worker/data/normalize.h"

namespace lepton::worker {
namespace {

constexpr double kByteScale = 255;
constexpr uint64_t kFlipDraw = 2, kShiftDraw = 3;  // purposes of ExampleDraw

// Sums are exact in integers: 2^64 holds 2^48 pixels of 255^2.
void MeasureBytes(const PixelStore& store, std::span<const int64_t> pictures, int64_t channel,
                  double* mean, double* deviation) {
  uint64_t sum = 0, squares = 0;
  const int64_t plane = store.shape().plane();
  for (const int64_t picture : pictures) {
    const uint8_t* pixels = store.BytePlane(picture, channel);
    for (int64_t i = 0; i < plane; ++i) {
      sum += pixels[i];
      squares += uint64_t{pixels[i]} * pixels[i];
    }
  }
  const auto count = static_cast<double>(plane * static_cast<int64_t>(pictures.size()));
  *mean = static_cast<double>(sum) / count;
  *deviation =
      std::sqrt(std::max(0.0, static_cast<double>(squares) / count - *mean * *mean)) / kByteScale;
  *mean /= kByteScale;
}

void MeasureNumbers(const PixelStore& store, std::span<const int64_t> pictures, int64_t channel,
                    double* mean, double* deviation) {
  const int64_t plane = store.shape().plane();
  const auto count = static_cast<double>(plane * static_cast<int64_t>(pictures.size()));
  double sum = 0, squares = 0;
  for (const int64_t picture : pictures) {
    const float* pixels = store.NumberPlane(picture, channel);
    for (int64_t i = 0; i < plane; ++i) sum += pixels[i];
  }
  *mean = sum / count;
  for (const int64_t picture : pictures) {
    const float* pixels = store.NumberPlane(picture, channel);
    for (int64_t i = 0; i < plane; ++i) squares += (pixels[i] - *mean) * (pixels[i] - *mean);
  }
  *deviation = std::sqrt(squares / count);
}

}  // namespace

std::shared_ptr<const PixelStore> PixelStore::Bytes(std::shared_ptr<const MappedFile> file,
                                                    uint64_t begin, const ImageShape& shape) {
  auto store = std::shared_ptr<PixelStore>(new PixelStore());
  store->shape_ = shape;
  store->file_ = std::move(file);
  store->begin_ = begin;
  return store;
}

std::shared_ptr<const PixelStore> PixelStore::Numbers(std::vector<float> pixels,
                                                      const ImageShape& shape) {
  auto store = std::shared_ptr<PixelStore>(new PixelStore());
  store->shape_ = shape;
  store->numbers_ = std::move(pixels);
  return store;
}

const uint8_t* PixelStore::BytePlane(int64_t picture, int64_t channel) const {
  const auto plane = static_cast<size_t>(shape_.plane());
  const uint64_t at = begin_ + static_cast<uint64_t>(picture * shape_.channels + channel) * plane;
  return file_->As<uint8_t>(at, plane).data();
}

const float* PixelStore::NumberPlane(int64_t picture, int64_t channel) const {
  return &numbers_[(picture * shape_.channels + channel) * shape_.plane()];
}

PixelScale MeasurePixels(const PixelStore& store, std::span<const int64_t> pictures) {
  PixelScale scale;
  for (int64_t channel = 0; channel < store.shape().channels; ++channel) {
    double mean = 0, deviation = 0;
    if (!pictures.empty()) {
      (store.bytes() ? MeasureBytes : MeasureNumbers)(store, pictures, channel, &mean, &deviation);
    }
    scale.mean.push_back(mean);
    scale.scale.push_back(deviation > 1e-12 * std::abs(mean) ? deviation : 1);
  }
  return scale;
}

ImageExamples::ImageExamples(std::shared_ptr<const PixelStore> store,
                             std::vector<int64_t> row_numbers, const PixelScale& scale,
                             const Augmentation& augmentation)
    : store_(std::move(store)),
      row_numbers_(std::move(row_numbers)),
      scale_(scale),
      augmentation_(augmentation) {
  if (!store_->bytes()) return;
  of_byte_.resize(store_->shape().channels);
  for (size_t channel = 0; channel < of_byte_.size(); ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      of_byte_[channel][byte] =
          NormalizeValue(byte / kByteScale, scale_.mean[channel], scale_.scale[channel]);
    }
  }
}

ImageExamples::Placement ImageExamples::Draw(uint64_t epoch, int64_t picture) const {
  Placement place;
  if (!augmentation_.any()) return place;
  const auto number = static_cast<uint64_t>(picture);
  if (augmentation_.flip) {
    place.flip = ExampleDraw(augmentation_.seed, epoch, number, kFlipDraw) & 1;
  }
  if (augmentation_.shift > 0) {
    const uint64_t draw = ExampleDraw(augmentation_.seed, epoch, number, kShiftDraw);
    const uint64_t places = 2 * static_cast<uint64_t>(augmentation_.shift) + 1;
    place.down = static_cast<int64_t>((draw >> 32) % places) - augmentation_.shift;
    place.right = static_cast<int64_t>((draw & 0xffffffff) % places) - augmentation_.shift;
  }
  return place;
}

void ImageExamples::FillPlane(int64_t picture, int64_t channel, const Placement& place,
                              float* out) const {
  const ImageShape& shape = store_->shape();
  const uint8_t* bytes = store_->bytes() ? store_->BytePlane(picture, channel) : nullptr;
  const float* numbers = store_->bytes() ? nullptr : store_->NumberPlane(picture, channel);
  const auto value = [&](int64_t at) {
    return bytes != nullptr
               ? of_byte_[channel][bytes[at]]
               : NormalizeValue(numbers[at], scale_.mean[channel], scale_.scale[channel]);
  };
  if (!place.flip && place.down == 0 && place.right == 0) {
    for (int64_t i = 0; i < shape.plane(); ++i) out[i] = value(i);
    return;
  }
  // What comes in from outside is raw zero.
  const float outside = NormalizeValue(0, scale_.mean[channel], scale_.scale[channel]);
  for (int64_t y = 0; y < shape.height; ++y) {
    const int64_t from_y = y - place.down;
    for (int64_t x = 0; x < shape.width; ++x) {
      const int64_t moved = x - place.right;
      const int64_t from_x = place.flip ? shape.width - 1 - moved : moved;
      const bool inside =
          from_y >= 0 && from_y < shape.height && from_x >= 0 && from_x < shape.width;
      *out++ = inside ? value(from_y * shape.width + from_x) : outside;
    }
  }
}

Status ImageExamples::Fill(uint64_t epoch, std::span<const int64_t> examples,
                           BatchBuffer& out) const {
  out.Resize(static_cast<int64_t>(examples.size()));
  float* pixels = out.Floats("pixels");
  if (pixels == nullptr) return InvalidArgument("the model takes no pictures");
  const ImageShape& shape = store_->shape();
  for (const int64_t example : examples) {
    const int64_t picture = row_numbers_[example];
    const Placement place = Draw(epoch, picture);
    progress::Tick();
    for (int64_t channel = 0; channel < shape.channels; ++channel) {
      FillPlane(picture, channel, place, pixels);
      pixels += shape.plane();
    }
  }
  FillLabels(examples, out);
  return Status::Ok();
}

}  // namespace lepton::worker
