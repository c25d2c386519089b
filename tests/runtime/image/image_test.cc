#include "runtime/formats/image/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "runtime/base/file.h"

namespace lepton::image {
namespace {

using ::testing::HasSubstr;

std::string FromBase64(const std::string& text) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const char* const at =
        strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", c);
    bits = bits << 6 |
           static_cast<uint32_t>(
               at - &"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[0]);
    count += 6;
    if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 255);
  }
  return out;
}

std::string Pixels(const Image& image) {
  return {image.pixels.begin(), image.pixels.end()};
}

class ImageTest : public ::testing::Test {
 protected:
  // The files that tests/golden/image/generate.py wrote, with what Pillow makes of them.
  static nlohmann::json Cases() {
    const auto text = ReadFile(LEPTON_SOURCE_DIR "/tests/golden/image/cases.json");
    return nlohmann::json::parse(text.value());
  }
};

TEST_F(ImageTest, DecodesToThePixelsOfPillow) {
  for (const auto& test : Cases()) {
    const std::string file = FromBase64(test["file"]);
    const auto info = ReadInfo(file);
    ASSERT_TRUE(info.ok()) << test["name"] << info.status().ToString();
    EXPECT_EQ(info->width, test["width"]);
    EXPECT_EQ(info->height, test["height"]);
    const auto colour = Decode(file, 3), grey = Decode(file, 1);
    ASSERT_TRUE(colour.ok()) << test["name"] << colour.status().ToString();
    ASSERT_TRUE(grey.ok()) << test["name"] << grey.status().ToString();
    EXPECT_EQ(Pixels(*colour), FromBase64(test["rgb"])) << test["name"];
    EXPECT_EQ(Pixels(*grey), FromBase64(test["grey"])) << test["name"];
  }
}

TEST_F(ImageTest, ResizesToThePixelsOfPillow) {
  for (const auto& test : Cases()) {
    const Image image = Decode(FromBase64(test["file"]), 3).value();
    const Box all{0, 0, double(image.width), double(image.height)};
    const auto& boxed = test["boxed"];
    const Box box{boxed["box"][0], boxed["box"][1], boxed["box"][2], boxed["box"][3]};
    for (const auto& [name, how] :
         {std::pair("rgb", Resampling::kBilinear), std::pair("bicubic", Resampling::kBicubic)}) {
      for (const auto& wanted : test["resized"]) {
        EXPECT_EQ(Pixels(Resize(image, wanted["width"], wanted["height"], all, how)),
                  FromBase64(wanted[name]))
            << test["name"] << " to " << wanted["width"] << " x " << wanted["height"] << ", "
            << name;
      }
      EXPECT_EQ(Pixels(Resize(image, boxed["width"], boxed["height"], box, how)),
                FromBase64(boxed[name]))
          << test["name"] << ", " << name;
    }
  }
}

TEST_F(ImageTest, AFileThatIsCutAnywhereIsRefused) {
  for (const auto& test : Cases()) {
    const std::string file = FromBase64(test["file"]);
    for (size_t size = 0; size + 1 < file.size(); ++size) {
      // A JPEG may miss its end marker and still be whole.
      if (test["name"].get<std::string>().ends_with("jpg") && size + 2 >= file.size()) continue;
      EXPECT_FALSE(Decode(std::string_view(file).substr(0, size), 3).ok())
          << test["name"] << " cut to " << size << " of " << file.size();
    }
  }
}

TEST_F(ImageTest, DamageIsAnErrorOrAPictureNeverACrash) {
  std::mt19937 random(1);
  int refused = 0;
  for (const auto& test : Cases()) {
    const std::string file = FromBase64(test["file"]);
    for (int round = 0; round < 300; ++round) {
      std::string bad = file;
      for (int i = 0; i < 3; ++i) bad[random() % bad.size()] = static_cast<char>(random());
      refused += !Decode(bad, 3).ok();
    }
  }
  EXPECT_GT(refused, 1500);
}

TEST_F(ImageTest, SizesOverTheLimitsAreRefusedFromTheHeader) {
  const std::string file = FromBase64(Cases()[1]["file"]);  // 10 x 6
  EXPECT_THAT(Decode(file, 3, {.max_side = 9}).status().message(), HasSubstr("10 x 6 pixels"));
  EXPECT_THAT(Decode(file, 3, {.max_pixels = 59}).status().message(), HasSubstr("59 in all"));
  EXPECT_TRUE(Decode(file, 3, {.max_side = 10, .max_pixels = 60}).ok());
  // A header that promises 2^31 - 1 squared must not cost memory.
  std::string bomb = file;
  bomb.replace(16, 8, std::string("\x7F\xFF\xFF\xFF\x7F\xFF\xFF\xFF", 8));
  EXPECT_FALSE(Decode(bomb, 3).ok());
  EXPECT_THAT(ReadInfo("GIF89a").status().message(), HasSubstr("neither a PNG nor a JPEG"));
}

TEST_F(ImageTest, TheCentredBoxHasTheShapeAskedFor) {
  Image wide{40, 20, 3, {}};
  const Box box = CentredBox(wide, 8, 8);
  EXPECT_EQ(box.left, 10);
  EXPECT_EQ(box.right, 30);
  EXPECT_EQ(box.top, 0);
  EXPECT_EQ(box.bottom, 20);
}

// Of a picture that is not square the middle is what is left when all of it was resized first.
TEST_F(ImageTest, TheMiddleBoxIsTheMiddleOfTheWholeResized) {
  for (const auto& [width, height] : {std::pair{40, 24}, {25, 41}}) {
    Image image{width, height, 3, {}};
    for (int i = 0; i < width * height * 3; ++i) image.pixels.push_back(i * 7 % 251);
    const int w = width > height ? 26 : 16, h = width > height ? 16 : 26;  // 16 * 40 / 24, 41 / 25
    const Image whole = Resize(image, w, h);
    const Image part = Resize(image, 14, 13, MiddleBox(image, 14, 13, 16));
    ASSERT_EQ(part.pixels.size(), 14 * 13 * 3);
    for (int y = 0; y < 13; ++y) {
      for (int x = 0; x < 14; ++x) {
        const int from = ((y + (h - 13) / 2) * w + x + (w - 14) / 2) * 3;
        EXPECT_EQ(part.pixels[(y * 14 + x) * 3], whole.pixels[from]) << x << " " << y;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::image
