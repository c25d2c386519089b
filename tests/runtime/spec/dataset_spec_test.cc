#include "runtime/spec/dataset_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/spec/job_spec.h"

namespace lepton::spec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<JobSpec> Parse(const std::string& dataset, const std::string& rest = "") {
  return ParseJobSpec("{kind: train, dataset: {" + dataset + "}" + rest + "}");
}

TEST(DatasetSpec, ReadsWhatPicturesAndTextsNeed) {
  const auto pictures = Parse(
      "uri: file:///pets, format: images, image: {height: 32, width: 24, mean: [0.1, 0.2, 0.3], "
      "std: [1, 1, 2], fit: crop, flip: true, shift: 4}");
  ASSERT_TRUE(pictures.ok()) << pictures.status().ToString();
  const PictureSpec& image = pictures->dataset.image;
  EXPECT_TRUE(pictures->dataset.pixels());
  EXPECT_THAT(image.mean, ElementsAre(0.1, 0.2, 0.3));
  EXPECT_EQ(image.shift, 4);
  const auto text = Parse("name: reviews, text: body, label: stars, tokenizer: bytes, context: 64");
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_EQ(text->dataset.text, "body");
  EXPECT_FALSE(text->dataset.pixels());
}

TEST(DatasetSpec, LanguageModelsAreJudgedByTheirLoss) {
  const auto spec = Parse("uri: file:///a.txt, tokenizer: bytes", ", loss: next_token");
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->checkpoint.keep_best.metric, "validation/loss");
  EXPECT_EQ(spec->checkpoint.keep_best.mode, "min");
  const auto tune = ParseJobSpec(
      "{kind: tune, dataset: {uri: file:///a.txt, tokenizer: bytes}, loss: next_token, search: "
      "{space: {optimizer.lr: {uniform: [0.1, 0.2]}}}}");
  ASSERT_TRUE(tune.ok()) << tune.status().ToString();
  EXPECT_EQ(tune->search->metric, "validation/loss");
  EXPECT_EQ(tune->search->mode, "min");
}

struct DatasetRefusal {
  const char* dataset;
  const char* rest;
  const char* says;
};

class DatasetSpecRefusal : public ::testing::TestWithParam<DatasetRefusal> {};

TEST_P(DatasetSpecRefusal, NamesTheFieldAndTheFix) {
  const auto spec = Parse(GetParam().dataset, GetParam().rest);
  ASSERT_FALSE(spec.ok()) << GetParam().dataset;
  EXPECT_EQ(spec.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(spec.status().message(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Table, DatasetSpecRefusal,
    ::testing::Values(
        DatasetRefusal{"uri: file:///a, format: xml", "", "dataset.format: \"xml\" is not one of"},
        DatasetRefusal{"name: a, format: csv", "", "dataset.format: belongs to uri"},
        DatasetRefusal{"name: a, token_type: u16", "", "dataset.token_type: belongs to uri"},
        DatasetRefusal{"uri: file:///a, token_type: u8", "", "dataset.token_type: \"u8\""},
        DatasetRefusal{"name: a, text_pair: b", "", "dataset.text_pair: needs dataset.text"},
        DatasetRefusal{"name: a, text: b, text_pair: b", "", "dataset.text_pair: must be another"},
        DatasetRefusal{"name: a, text: target", "", "dataset.label: 'target' is the text too"},
        DatasetRefusal{"name: a, tokenizer: gpt2", "", "dataset.tokenizer: 'gpt2' must be bytes"},
        DatasetRefusal{"name: a, context: -1", "", "dataset.context: -1 is out of range"},
        DatasetRefusal{"name: a, text: b, image: {height: 2, width: 2}", "",
                       "dataset.image: cannot go with dataset.text"},
        DatasetRefusal{"name: a, image: {height: 2}", "", "dataset.image: has only one of height"},
        DatasetRefusal{"name: a, image: {mean: [1]}", "", "dataset.image: has only one of mean"},
        DatasetRefusal{
            "name: a, image: {channels: 3, mean: [1, 2], std: [1, 2]}", "",
            "dataset.image.mean: has 2 numbers; must have one, or one for each of the 3"},
        DatasetRefusal{"name: a, image: {mean: [1, 2], std: [1]}", "",
                       "dataset.image.std: must have as many"},
        DatasetRefusal{"name: a, image: {mean: [1], std: [0]}", "",
                       "dataset.image.std.0: 0 is out of range: must be greater than 0"},
        DatasetRefusal{"name: a, image: {mean: [x], std: [1]}", "",
                       "dataset.image.mean.0: \"x\" is not a number"},
        DatasetRefusal{"name: a, image: {fit: zoom}", "", "dataset.image.fit: \"zoom\""},
        DatasetRefusal{"name: a, image: {flips: true}", "", "did you mean 'flip'?"},
        DatasetRefusal{"name: a, image: {height: 2, width: 2}", ", loss: next_token",
                       "loss: next_token is for text and tokens"}));

}  // namespace
}  // namespace lepton::spec
