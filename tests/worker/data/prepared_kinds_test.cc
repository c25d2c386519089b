// Pictures, texts and streams made ready, with what is refused of each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>

#include <filesystem>
#include <fstream>

#include "storage/datasets/import.h"
#include "tests/storage/pictures.h"
#include "tests/worker/data/tiny_tokenizer.h"
#include "tests/worker/train/fake_task.h"
#include "worker/data/image_examples.h"
#include "worker/data/picture_file.h"
#include "worker/data/token_windows.h"

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PreparedKindsTest : public testing::TaskTest {
 protected:
  Result<PreparedData> Prepare(const storage::Digest& dataset, const std::string& loss,
                               const std::string& tokenizer = "",
                               const storage::ModelManifest* like = nullptr) {
    LEPTON_ASSIGN_OR_RETURN(const StoredDataset stored, LoadDataset(*objects_, dataset));
    DerivedFiles derived(*objects_, [] { return false; });
    return PrepareData(stored,
                       {.dataset = dataset_,
                        .loss = loss,
                        .model = &model_,
                        .like = like,
                        .tokenizer = tokenizer,
                        .labels = labels_},
                       {*objects_, derived});
  }
  std::string Error(const storage::Digest& dataset, const std::string& loss,
                    const std::string& tokenizer = "",
                    const storage::ModelManifest* like = nullptr) {
    const auto data = Prepare(dataset, loss, tokenizer, like);
    return data.ok() ? "no error" : data.status().message();
  }
  storage::Digest ImportAs(const std::string& format, std::string_view bytes) {
    storage::ImportOptions options;
    options.format = format;
    const auto imported =
        storage::ImportFile(*objects_, storage::ByteSource::FromMemory(bytes), options);
    EXPECT_TRUE(imported.ok()) << imported.status().ToString();
    return imported.ok() ? imported->digest : "";
  }
  // `per_class` pictures in each of "cat" and "dog"; cats are dark, dogs bright.
  storage::Digest Pets(int per_class, bool different_sizes = false) {
    const fs::path root = folder_.path() / "pets";
    for (int i = 0; i < per_class; ++i) {
      for (const bool dog : {false, true}) {
        const int width = different_sizes ? 6 + i % 3 : 6;
        const std::vector<uint8_t> pixels(3 * width * 4,
                                          static_cast<uint8_t>((dog ? 200 : 40) + i));
        const fs::path path = root / (dog ? "dog" : "cat") / (std::to_string(i) + ".png");
        fs::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << pictures::PngOf(width, 4, pixels);
      }
    }
    const auto imported = storage::ImportFolder(
        *objects_, UniqueFd(::open(root.c_str(), O_RDONLY | O_DIRECTORY)), {});
    EXPECT_TRUE(imported.ok()) << imported.status().ToString();
    fs::remove_all(root);
    return imported->digest;
  }

  spec::DatasetSpec dataset_;
  spec::ModelSpec model_;
  bool labels_ = true;
};

TEST_F(PreparedKindsTest, PicturesOfFoldersAreSplitSizedAndNormalised) {
  const auto pets = Pets(20);
  const auto data = Prepare(pets, "cross_entropy");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->shape.kind, nn::DataShape::Kind::kImages);
  EXPECT_EQ(data->shape.channels, 3);
  EXPECT_EQ(data->shape.height, 4);
  EXPECT_EQ(data->shape.width, 6);
  EXPECT_EQ(data->shape.outputs, 2);
  EXPECT_THAT(data->classes, ElementsAre("cat", "dog"));
  EXPECT_EQ(data->train->rows(), 32);
  EXPECT_EQ(data->validation->rows() + data->test->rows(), 8);
  EXPECT_EQ(data->input.kind, "images");
  EXPECT_NEAR(data->input.mean[1], (120 + 9.5) / 255, 0.02);

  dataset_.image = {.channels = 1, .height = 2, .width = 2, .mean = {0.5}, .std = {0.25}};
  const auto small = Prepare(pets, "binary_cross_entropy");
  ASSERT_TRUE(small.ok()) << small.status().ToString();
  BatchBuffer buffer({{{"pixels", {DType::kF32, {Shape::kBatch, 1, 2, 2}}}}, 1});
  const int64_t first[] = {0};
  ASSERT_TRUE(small->test->Fill(0, first, buffer).ok());
  const int64_t row = small->test->row_number(0);  // cats first, then dogs
  const double byte = (row >= 20 ? 200 : 40);
  EXPECT_NEAR(buffer.batch().inputs[0].span<const float>()[0], (byte / 255 - 0.5) / 0.25, 0.4);
  EXPECT_THAT(buffer.values, ElementsAre(row >= 20 ? 1.0f : 0.0f));
}

// A wide picture with a white middle and a black frame: how much of the frame is left says which
// part was cut out.
TEST_F(PreparedKindsTest, PicturesAreCutOutAsTheirFitSays) {
  constexpr int kWide = 48, kHigh = 32;
  std::vector<uint8_t> rgb(3 * kWide * kHigh, 0);
  for (int y = 4; y < kHigh - 4; ++y) {
    for (int x = 12; x < kWide - 12; ++x) {
      for (int c = 0; c < 3; ++c) rgb[(y * kWide + x) * 3 + c] = 255;
    }
  }
  const std::string file = pictures::PngOf(kWide, kHigh, rgb);
  const auto black = [&](const PictureFit& fit) {
    const auto pixels = PixelsOfFile(file, {1, 24, 24}, fit).value();
    return std::count_if(pixels.begin(), pixels.end(), [](uint8_t pixel) { return pixel < 128; });
  };
  // The shorter side as it is: its middle 24 x 24 pixels are white.
  EXPECT_EQ(black({"shortest", 32}), 0);
  // All of it as 24 x 24: a frame of 3 pixels.
  EXPECT_EQ(black({"shortest", 24}), 24 * 24 - 18 * 18);
  EXPECT_EQ(black({"crop"}), 24 * 24 - 18 * 18);
  // The white part is half as wide as the picture and three quarters as high.
  EXPECT_EQ(black({"stretch"}), 24 * 24 - 12 * 18);
}

TEST_F(PreparedKindsTest, OnlyTrainingPicturesAreAugmented) {
  dataset_.image.flip = true;
  dataset_.image.shift = 1;
  const auto data = Prepare(Pets(20), "cross_entropy");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_NE(data->train, data->train_plain);
  const nn::Signature signature{{{"pixels", {DType::kF32, {Shape::kBatch, 3, 4, 6}}}}, 2};
  const auto epochs_differ = [&](const Examples& examples) {
    BatchBuffer a(signature), b(signature);
    for (int64_t i = 0; i < examples.rows(); ++i) {
      const int64_t one[] = {i};
      EXPECT_TRUE(examples.Fill(0, one, a).ok() && examples.Fill(1, one, b).ok());
      const nn::Batch left = a.batch(), right = b.batch();
      const auto x = left.inputs[0].span<const float>(), y = right.inputs[0].span<const float>();
      if (!std::equal(x.begin(), x.end(), y.begin())) return true;
    }
    return false;
  };
  EXPECT_TRUE(epochs_differ(*data->train));
  EXPECT_FALSE(epochs_differ(*data->train_plain));
  EXPECT_FALSE(epochs_differ(*data->validation));
  EXPECT_FALSE(epochs_differ(*data->test));
}

TEST_F(PreparedKindsTest, PicturesThatDoNotFitAreRefused) {
  const auto pets = Pets(10, /*different_sizes=*/true);
  EXPECT_THAT(Error(pets, "cross_entropy"),
              HasSubstr("dataset.image: the pictures have different"));
  model_.image = {.channels = 3, .height = 8, .width = 8};
  const auto sized = Prepare(pets, "cross_entropy");
  ASSERT_TRUE(sized.ok()) << sized.status().ToString();
  EXPECT_EQ(sized->shape.height, 8);
  EXPECT_THAT(Error(pets, "mse"), HasSubstr("loss: pictures in folders have classes"));
  EXPECT_THAT(Error(pets, "next_token"), HasSubstr("loss: pictures in folders have classes"));
  dataset_.image = {.channels = 2, .height = 4, .width = 4};
  EXPECT_THAT(Error(pets, "cross_entropy"), HasSubstr("dataset.image.channels: 2"));
  dataset_.image = {.height = 4, .width = 4, .mean = {1, 2}, .std = {1, 2}};
  EXPECT_THAT(Error(pets, "cross_entropy"), HasSubstr("dataset.image.mean: has 2 numbers"));

  storage::ModelManifest model;
  model.loss = "cross_entropy";
  model.classes = {"cat", "cow"};
  model.input.kind = "images";
  model.input.channels = 3;
  model.input.height = model.input.width = 4;
  model.input.mean = model.input.scale = {1, 1, 1};
  EXPECT_THAT(Error(pets, "cross_entropy", "", &model), HasSubstr("has class \"dog\""));
  model.feature_names = {"p0"};
  EXPECT_THAT(Error(pets, "cross_entropy", "", &model),
              HasSubstr("the model takes images of a table's columns, but the data is images"));
}

TEST_F(PreparedKindsTest, PixelColumnsAreAPicture) {
  std::string csv = "p0,p1,p2,p3,target\n";
  for (int i = 0; i < 20; ++i) {
    csv +=
        std::to_string(i) + ",1,2," + std::to_string(16 - i % 4) + (i % 2 ? ",odd\n" : ",even\n");
  }
  const auto table = ImportAs("csv", csv);
  dataset_.image = {.height = 2, .width = 2};
  const auto data = Prepare(table, "cross_entropy");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->shape.channels, 1);
  EXPECT_THAT(data->feature_names, ElementsAre("p0", "p1", "p2", "p3"));
  EXPECT_TRUE(data->mean.empty());
  EXPECT_EQ(data->input.mean.size(), 1u);
  dataset_.image = {.height = 3, .width = 2};
  EXPECT_THAT(Error(table, "cross_entropy"),
              HasSubstr("dataset.image: 1 x 3 x 2 pixels, but the table has 4 columns"));
  dataset_.image = {.channels = 3, .height = 2, .width = 2};
  EXPECT_THAT(Error(table, "cross_entropy"), HasSubstr("3 x 2 x 2 pixels"));
}

constexpr char kReviews[] =
    "{\"text\": \"a good film\", \"target\": \"pos\"}\n{\"text\": \"a bad film\", \"target\": "
    "\"neg\"}\n"
    "{\"text\": \"good good\", \"target\": \"pos\"}\n{\"text\": \"bad bad cat\", \"target\": "
    "\"neg\"}\n"
    "{\"text\": \"the good dog\", \"target\": \"pos\"}\n{\"text\": \"the bad mat\", \"target\": "
    "\"neg\"}\n";

TEST_F(PreparedKindsTest, TextsOfATableAreTokensWithLabels) {
  const auto table = ImportAs("jsonl", kReviews);
  const auto tokenizer = objects_->Put(testing::TinyTokenizerJson()).value();
  dataset_.text = "text";
  const auto data = Prepare(table, "cross_entropy", tokenizer);
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->shape.kind, nn::DataShape::Kind::kTokens);
  EXPECT_EQ(data->shape.vocabulary, 16);
  EXPECT_EQ(data->shape.context, 128);
  EXPECT_EQ(data->shape.outputs, 2);
  EXPECT_FALSE(data->shape.per_token);
  EXPECT_THAT(data->classes, ElementsAre("neg", "pos"));
  EXPECT_EQ(data->input.text, "text");
  EXPECT_EQ(data->input.tokenizer, tokenizer);
  for (int64_t i = 0; i < data->train->rows(); ++i) {
    EXPECT_EQ(data->train->classes()[i], data->train->row_number(i) % 2 == 0 ? 1 : 0);
  }
  model_.transformer.context = 6;
  EXPECT_EQ(Prepare(table, "cross_entropy", "bytes")->shape.context, 6);
  EXPECT_EQ(Prepare(table, "next_token", "bytes")->shape.per_token, true);
}

TEST_F(PreparedKindsTest, TextsThatDoNotFitAreRefused) {
  const auto table = ImportAs("jsonl", kReviews);
  dataset_.text = "text";
  EXPECT_THAT(Error(table, "cross_entropy"), HasSubstr("dataset.tokenizer: missing"));
  dataset_.text = "body";
  EXPECT_THAT(Error(table, "cross_entropy", "bytes"),
              HasSubstr("dataset.text: no column \"body\""));
  const auto numbers = ImportAs("csv", "text,target\n1,x\n2,y\n3,x\n4,y\n");
  dataset_.text = "text";
  EXPECT_THAT(Error(numbers, "cross_entropy", "bytes"), HasSubstr("holds numbers, not text"));
  dataset_.text = "";
  EXPECT_THAT(Error(numbers, "next_token"), HasSubstr("loss: next_token needs text"));
}

TEST_F(PreparedKindsTest, StreamsAreCutInOrder) {
  std::string text(1000, 'x');
  const auto stream = ImportAs("text", text);
  dataset_.context = 10;
  dataset_.split = {.train = 0.8, .validation = 0.1};
  const auto data = Prepare(stream, "next_token", "bytes");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->shape.vocabulary, 256);
  EXPECT_TRUE(data->shape.per_token);
  EXPECT_EQ(data->train->rows(), 79);  // (800 - 10) / 10
  EXPECT_EQ(data->train_plain->rows(), 80);
  EXPECT_EQ(data->validation->row_number(0), 800);
  EXPECT_EQ(data->test->row_number(0), 900);
  EXPECT_EQ(data->test->rows(), 10);
  labels_ = false;
  EXPECT_EQ(Prepare(stream, "next_token", "bytes")->test->rows(), 100);
  EXPECT_EQ(Prepare(stream, "next_token", "bytes")->train->rows(), 0);
  labels_ = true;
  EXPECT_THAT(Error(stream, "cross_entropy", "bytes"), HasSubstr("loss: a stream of text has no"));
  EXPECT_THAT(Error(ImportAs("text", "abcdefgh"), "next_token", "bytes"),
              HasSubstr("dataset.split: 8 tokens are too few: the validation part would have 1"));
}

TEST_F(PreparedKindsTest, TokensBeyondTheVocabularyAreRefusedWithTheirPosition) {
  const uint16_t ids[] = {1, 2, 3, 900, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1};
  const auto tokens =
      ImportAs("tokens", std::string_view(reinterpret_cast<const char*>(ids), sizeof(ids)));
  const auto data = Prepare(tokens, "next_token");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->shape.vocabulary, 901);
  model_.transformer.vocabulary = 512;
  EXPECT_THAT(Error(tokens, "next_token"),
              HasSubstr("token 900 at position 3 is outside of the vocabulary, which has 512"));
  model_.transformer.vocabulary = 1024;
  EXPECT_EQ(Prepare(tokens, "next_token")->shape.vocabulary, 1024);
  EXPECT_THAT(Error(tokens, "next_token", objects_->Put(testing::TinyTokenizerJson()).value()),
              HasSubstr("no error"));
}

TEST_F(PreparedKindsTest, WithoutLabelsEveryRowIsThereAndNoneIsAsked) {
  labels_ = false;
  storage::ModelManifest model;
  model.loss = "cross_entropy";
  model.classes = {"x", "y"};
  model.feature_names = {"a"};
  model.mean = {1};
  model.scale = {2};
  const auto data = Prepare(ImportAs("csv", "b,a\n5,1\n6,3\n"), "cross_entropy", "", &model);
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(data->test->rows(), 2);
  EXPECT_EQ(data->train->rows(), 0);
  EXPECT_TRUE(data->test->classes().empty());
  EXPECT_THAT(data->classes, ElementsAre("x", "y"));
}

}  // namespace
}  // namespace lepton::worker
