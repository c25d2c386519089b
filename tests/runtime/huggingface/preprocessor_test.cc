// How pictures are prepared, as public files say it.
#include "runtime/formats/huggingface/preprocessor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lepton::huggingface {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Preprocessor, ReadsTheFormsOfPublicFiles) {
  const auto vit = ParsePreprocessor(
      R"({"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
          "image_std": [0.25, 0.5, 0.5], "size": 224, "feature_extractor_type": "x"})",
      3);
  ASSERT_TRUE(vit.ok()) << vit.status().ToString();
  EXPECT_EQ(vit->height, 224);
  EXPECT_EQ(vit->width, 224);
  EXPECT_EQ(vit->fit, "stretch");
  EXPECT_THAT(vit->scale, ElementsAre(0.25, 0.5, 0.5));
  const auto resnet = ParsePreprocessor(
      R"({"crop_pct": 0.875, "size": {"shortest_edge": 200}, "image_mean": [0.1, 0.2, 0.3],
          "image_std": [1, 1, 1], "resample": 3})",
      3);
  ASSERT_TRUE(resnet.ok()) << resnet.status().ToString();
  EXPECT_EQ(resnet->fit, "crop");
  EXPECT_EQ(resnet->height, 200);
  const auto grey = ParsePreprocessor(
      R"({"size": {"shortest_edge": 40}, "do_center_crop": true,
          "crop_size": {"height": 32, "width": 30}, "image_mean": 51, "image_std": 255,
          "do_rescale": false})",
      1);
  ASSERT_TRUE(grey.ok()) << grey.status().ToString();
  EXPECT_EQ(grey->width, 30);
  EXPECT_THAT(grey->mean, ElementsAre(DoubleNear(0.2, 1e-12)));  // of bytes as 0 to 1
  EXPECT_THAT(grey->scale, ElementsAre(DoubleNear(1, 1e-12)));
}

TEST(Preprocessor, NamesWhatIsWrong) {
  const auto says = [](const char* text) {
    return std::string(ParsePreprocessor(text, 3).status().message());
  };
  EXPECT_THAT(says("[]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(says("{}"), HasSubstr("size: missing"));
  EXPECT_THAT(says(R"({"size": 0})"), HasSubstr("size: is not a number of pixels"));
  EXPECT_THAT(says(R"({"size": {"longest_edge": 9}})"), HasSubstr("size: is not"));
  EXPECT_THAT(says(R"({"size": 9})"), HasSubstr("image_mean: missing"));
  EXPECT_THAT(says(R"({"size": 9, "image_mean": [0, 0], "image_std": [1, 1]})"),
              HasSubstr("image_mean: is not a number for each of the 3 channels"));
  EXPECT_THAT(says(R"({"size": 9, "image_mean": 0, "image_std": [1, 0, 1]})"),
              HasSubstr("image_std: is not"));
  EXPECT_THAT(says(R"({"size": 9, "do_normalize": 3})"), HasSubstr("do_normalize: is not true"));
  EXPECT_THAT(says(R"({"size": 9, "do_normalize": false, "rescale_factor": -1})"),
              HasSubstr("rescale_factor"));
}

TEST(Preprocessor, ComesBackTheSame) {
  for (const char* fit : {"stretch", "crop"}) {
    const ImagePreparation p{32, 24, fit, {0.1, 0.2, 0.3}, {0.5, 0.25, 1}};
    const auto again = ParsePreprocessor(WritePreprocessor(p), 3);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(again->height, p.height);
    EXPECT_EQ(again->width, p.width);
    EXPECT_EQ(again->fit, p.fit);
    EXPECT_EQ(again->mean, p.mean);
    EXPECT_EQ(again->scale, p.scale);
  }
}

}  // namespace
}  // namespace lepton::huggingface
