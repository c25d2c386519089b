#include "worker/data/image_examples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "runtime/base/file.h"
#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;

constexpr ImageShape kShape{2, 4, 5};

nn::Signature Pixels(const ImageShape& shape) {
  return {{{"pixels", {DType::kF32, {Shape::kBatch, shape.channels, shape.height, shape.width}}}},
          3};
}

class ImageExamplesTest : public ::testing::Test {
 protected:
  // `pictures` whose bytes count up from 10.
  std::shared_ptr<const PixelStore> ByteStore(int64_t pictures) {
    std::string bytes(8 + pictures * kShape.size(), '#');
    for (size_t i = 8; i < bytes.size(); ++i) bytes[i] = static_cast<char>(10 + i - 8);
    const auto path = folder_.path() / "pixels";
    EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
    return PixelStore::Bytes(std::make_shared<MappedFile>(MappedFile::Open(path).value()), 8,
                             kShape);
  }
  static std::vector<float> Fill(const ImageExamples& examples, uint64_t epoch, int64_t example) {
    BatchBuffer buffer(Pixels(kShape));
    const int64_t one[] = {example};
    EXPECT_TRUE(examples.Fill(epoch, one, buffer).ok());
    const auto batch = buffer.batch();
    const auto pixels = batch.inputs[0].span<const float>();
    return {pixels.begin(), pixels.end()};
  }
  static std::vector<int64_t> All(int64_t count) {
    std::vector<int64_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }
  TempFolder folder_;
};

TEST_F(ImageExamplesTest, BytesAreNormalisedAChannel) {
  const ImageExamples examples(ByteStore(3), {2, 0}, {{0.1, 0.2}, {0.5, 2}});
  const std::vector<float> pixels = Fill(examples, 0, 1);  // picture 0
  EXPECT_EQ(pixels[0], static_cast<float>((10 / 255.0 - 0.1) / 0.5));
  EXPECT_EQ(pixels[20], static_cast<float>((30 / 255.0 - 0.2) / 2));
  EXPECT_EQ(examples.row_number(0), 2);
  EXPECT_EQ(Fill(examples, 0, 0)[0], static_cast<float>((90 / 255.0 - 0.1) / 0.5));
}

TEST_F(ImageExamplesTest, MeansAndDeviationsAreThoseOfTheRows) {
  const auto store = ByteStore(3);
  const int64_t rows[] = {0, 2};
  const PixelScale scale = MeasurePixels(*store, rows);
  // Channel 0 of pictures 0 and 2: bytes 10..29 and 90..109.
  double mean = 0, squares = 0;
  for (int i = 0; i < 20; ++i) mean += (10 + i) + (90 + i);
  mean /= 40;
  for (int i = 0; i < 20; ++i) squares += std::pow(10 + i - mean, 2) + std::pow(90 + i - mean, 2);
  EXPECT_NEAR(scale.mean[0], mean / 255, 1e-12);
  EXPECT_NEAR(scale.scale[0], std::sqrt(squares / 40) / 255, 1e-9);
  const auto constant = PixelStore::Numbers(std::vector<float>(80, 7.0f), kShape);
  EXPECT_THAT(MeasurePixels(*constant, std::vector<int64_t>{0, 1}).scale, ElementsAre(1, 1));
  EXPECT_THAT(MeasurePixels(*constant, std::vector<int64_t>{0, 1}).mean, ElementsAre(7, 7));
}

// What a picture becomes under a flip and a shift, from the definition.
std::vector<float> Moved(const std::vector<float>& pixels, bool flip, int down, int right,
                         const std::vector<float>& outside) {
  std::vector<float> moved;
  for (int c = 0; c < kShape.channels; ++c) {
    for (int y = 0; y < kShape.height; ++y) {
      for (int x = 0; x < kShape.width; ++x) {
        const int from_y = y - down, at_x = x - right;
        const int from_x = flip ? static_cast<int>(kShape.width) - 1 - at_x : at_x;
        const bool inside =
            from_y >= 0 && from_y < kShape.height && from_x >= 0 && from_x < kShape.width;
        moved.push_back(inside ? pixels[(c * kShape.height + from_y) * kShape.width + from_x]
                               : outside[c]);
      }
    }
  }
  return moved;
}

TEST_F(ImageExamplesTest, AugmentationFlipsAndShiftsByDrawsOfSeedEpochAndPicture) {
  const auto store = ByteStore(8);
  const PixelScale scale{{0.5, 0.25}, {0.5, 0.5}};
  const ImageExamples plain(store, All(8), scale);
  const ImageExamples moved(store, All(8), scale, {.flip = true, .shift = 2, .seed = 4});
  const ImageExamples other(store, {7, 3}, scale, {.flip = true, .shift = 2, .seed = 4});
  const std::vector<float> outside = {-1.0f, -0.5f};  // a raw zero
  int flips = 0;
  std::set<std::pair<int, int>> shifts;
  for (uint64_t epoch = 0; epoch < 20; ++epoch) {
    for (int64_t picture = 0; picture < 8; ++picture) {
      const std::vector<float> as_is = Fill(plain, epoch, picture);
      EXPECT_EQ(as_is, Fill(plain, 0, picture)) << "an evaluation sees no epochs";
      const std::vector<float> got = Fill(moved, epoch, picture);
      bool found = false;
      for (const bool flip : {false, true}) {
        for (int down = -2; down <= 2; ++down) {
          for (int right = -2; right <= 2; ++right) {
            if (found || got != Moved(as_is, flip, down, right, outside)) continue;
            found = true;
            flips += flip;
            shifts.insert({down, right});
          }
        }
      }
      EXPECT_TRUE(found) << "epoch " << epoch << " picture " << picture;
    }
    // The same picture in another part, at another place of it, is drawn the same.
    EXPECT_EQ(Fill(other, epoch, 1), Fill(moved, epoch, 3));
  }
  EXPECT_GT(flips, 50);
  EXPECT_LT(flips, 110);
  EXPECT_EQ(shifts.size(), 25u);
}

// Each may come from a disk.
TEST_F(ImageExamplesTest, EachPictureCountsAsProgress) {
  const ImageExamples examples(ByteStore(3), All(3), {{0, 0}, {1, 1}});
  BatchBuffer buffer(Pixels(kShape));
  const uint64_t before = progress::Now().ticks;
  EXPECT_TRUE(examples.Fill(0, All(3), buffer).ok());
  EXPECT_EQ(progress::Now().ticks, before + 3);
}

TEST_F(ImageExamplesTest, NumbersOfATableAreNormalisedAsTheyAre) {
  std::vector<float> pixels(2 * kShape.size());
  std::iota(pixels.begin(), pixels.end(), 0.0f);
  ImageExamples examples(PixelStore::Numbers(pixels, kShape), {1}, {{10, 0}, {2, 1}});
  examples.SetLabels({2}, {});
  EXPECT_EQ(Fill(examples, 0, 0)[0], 15.0f);
  EXPECT_EQ(Fill(examples, 0, 0)[20], 60.0f);
}

}  // namespace
}  // namespace lepton::worker
