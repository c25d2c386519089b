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
  EXPECT_EQ(resnet->fit, "shortest");
  EXPECT_EQ(resnet->height, 200);
  EXPECT_EQ(resnet->edge, 228);  // 200 / 0.875
  const auto grey = ParsePreprocessor(
      R"({"size": {"shortest_edge": 40}, "do_center_crop": true,
          "crop_size": {"height": 32, "width": 30}, "image_mean": 51, "image_std": 255,
          "do_rescale": false})",
      1);
  ASSERT_TRUE(grey.ok()) << grey.status().ToString();
  EXPECT_EQ(grey->width, 30);
  EXPECT_EQ(grey->fit, "shortest");
  EXPECT_EQ(grey->edge, 40);
  EXPECT_THAT(grey->mean, ElementsAre(DoubleNear(0.2, 1e-12)));  // of bytes as 0 to 1
  EXPECT_THAT(grey->scale, ElementsAre(DoubleNear(1, 1e-12)));
}

// What each class does with the same words.
TEST(Preprocessor, SizesMeanWhatTheProcessorMakesOfThem) {
  const auto fit = [](const std::string& options) {
    const auto p = ParsePreprocessor("{\"do_normalize\": false, " + options + "}", 3);
    if (!p.ok()) return std::string(p.status().message());
    return p->fit + " " + std::to_string(p->edge) + " " + std::to_string(p->height) + " " +
           std::to_string(p->width);
  };
  const std::string convnext = R"("feature_extractor_type": "ConvNextFeatureExtractor", )";
  EXPECT_EQ(fit(convnext + R"("crop_pct": 0.875, "size": 224)"), "shortest 256 224 224");
  EXPECT_EQ(fit(convnext + R"("size": 224)"), "shortest 256 224 224");
  EXPECT_EQ(fit(convnext + R"("size": {"shortest_edge": 384}, "crop_pct": 0.9)"),
            "stretch 0 384 384");
  EXPECT_THAT(fit(convnext + R"("crop_pct": 1.5, "size": 224)"), HasSubstr("crop_pct: is not"));
  EXPECT_EQ(fit(R"("image_processor_type": "ViTImageProcessor", "size": 224)"),
            "stretch 0 224 224");
  const std::string clip = R"("image_processor_type": "CLIPImageProcessor", )";
  EXPECT_EQ(fit(clip + R"("size": 250)"), "shortest 250 224 224");
  EXPECT_EQ(fit(R"("size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": 224)"),
            "shortest 256 224 224");
  EXPECT_THAT(fit(clip + R"("size": {"shortest_edge": 256}, "do_center_crop": false)"),
              HasSubstr("do_center_crop: false is not supported"));
  EXPECT_THAT(fit(R"("size": {"shortest_edge": 200}, "do_center_crop": true, "crop_size": 224)"),
              HasSubstr("crop_size: is larger"));
  EXPECT_THAT(fit(R"("size": {"height": 256, "width": 256}, "do_center_crop": true,
                     "crop_size": 224)"),
              HasSubstr("do_center_crop: of a picture that was stretched"));
  EXPECT_THAT(fit(R"("size": {"shortest_edge": 256, "longest_edge": 300})"),
              HasSubstr("size: a longest_edge"));
  EXPECT_THAT(fit(R"("size": 224, "do_resize": false)"), HasSubstr("do_resize: false"));
}

// By number as Pillow counts, or as the processor does it when nothing is said.
TEST(Preprocessor, TheFilterIsTakenOrRefusedByName) {
  const auto filter = [](const std::string& options) {
    const auto p = ParsePreprocessor("{\"do_normalize\": false, \"size\": 224" + options + "}", 3);
    return p.ok() ? p->resample : std::string(p.status().message());
  };
  const std::string clip = R"(, "image_processor_type": "CLIPImageProcessor")";
  const std::string bit = R"(, "feature_extractor_type": "BitFeatureExtractor")";
  EXPECT_EQ(filter(""), "bilinear");
  EXPECT_EQ(filter(R"(, "resample": null)"), "bilinear");
  EXPECT_EQ(filter(R"(, "resample": 3)"), "bicubic");
  EXPECT_EQ(filter(clip), "bicubic");
  EXPECT_EQ(filter(bit), "bicubic");
  EXPECT_EQ(filter(clip + R"(, "resample": 2)"), "bilinear");
  for (const char* other : {"0", "1", "4", "2.5", "\"bicubic\""}) {
    EXPECT_THAT(filter(std::string(", \"resample\": ") + other),
                HasSubstr(std::string("resample: ") + other + " is not supported: must be 2"));
  }
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
  for (const char* fit : {"stretch", "crop", "shortest"}) {
    const int64_t edge = std::string(fit) == "shortest" ? 37 : 0;
    const ImagePreparation p{32, 24, fit, {0.1, 0.2, 0.3}, {0.5, 0.25, 1}, edge};
    const auto again = ParsePreprocessor(WritePreprocessor(p), 3);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(again->height, p.height);
    EXPECT_EQ(again->width, p.width);
    EXPECT_EQ(again->fit, p.fit);
    EXPECT_EQ(again->edge, p.edge);
    EXPECT_EQ(again->mean, p.mean);
    EXPECT_EQ(again->scale, p.scale);
  }
}

}  // namespace
}  // namespace lepton::huggingface
