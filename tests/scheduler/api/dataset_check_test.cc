#include "scheduler/api/dataset_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lepton::api {
namespace {

using storage::ColumnType;
using testing::HasSubstr;

storage::DatasetManifest Iris() {
  storage::DatasetManifest dataset;
  dataset.rows = 100;
  dataset.columns = {{"length", ColumnType::kReal, {}, 0},
                     {"width", ColumnType::kInteger, {"1", "2"}, 3},
                     {"target", ColumnType::kText, {"a", "b", "c"}, 0}};
  return dataset;
}

storage::ModelManifest IrisModel() {
  storage::ModelManifest model;
  model.loss = "cross_entropy";
  model.feature_names = {"length", "width"};
  model.classes = {"a", "b", "c"};
  return model;
}

TEST(DatasetCheckTest, AFittingDatasetGivesItsFacts) {
  const auto facts = CheckDataset(Iris(), {});
  ASSERT_TRUE(facts.ok()) << facts.status().ToString();
  EXPECT_THAT(facts->features, testing::ElementsAre("length", "width"));
  EXPECT_THAT(facts->classes, testing::ElementsAre("a", "b", "c"));
  EXPECT_EQ(facts->train_rows, 80);
  EXPECT_EQ(facts->validation_rows, 10);
  EXPECT_EQ(facts->test_rows, 10);
}

TEST(DatasetCheckTest, EachMisfitNamesItsFieldAndWhatThereIs) {
  struct Case {
    const char* name;
    std::function<void(storage::DatasetManifest&, spec::JobSpec&)> spoil;
    std::vector<std::string> said;
  };
  const std::vector<Case> cases = {
      {"label",
       [](auto&, auto& spec) { spec.dataset.label = "species"; },
       {"dataset.label: ", "species", "length, width, target"}},
      {"missing label",
       [](auto& data, auto&) { data.columns[2].missing = 7; },
       {"dataset.label: ", "7 rows"}},
      {"one class",
       [](auto& data, auto&) { data.columns[2].classes = {"a"}; },
       {"dataset.label: ", "\"a\" in every row"}},
      {"too many classes",
       [](auto& data, auto&) { data.columns[2].classes = {}; },
       {"dataset.label: ", "1000"}},
      {"binary",
       [](auto&, auto& spec) { spec.loss = "binary_cross_entropy"; },
       {"loss: ", "exactly 2", "has 3"}},
      {"text label for mse",
       [](auto&, auto& spec) { spec.loss = "mse"; },
       {"dataset.label: ", "mse needs numbers"}},
      {"text feature",
       [](auto& data, auto&) { data.columns[0].type = ColumnType::kText; },
       {"dataset: ", "length"}},
      {"missing cells",
       [](auto&, auto& spec) { spec.dataset.missing = "error"; },
       {"dataset.missing: ", "width"}},
      {"no features",
       [](auto& data, auto&) {
         data.columns.erase(data.columns.begin(), data.columns.begin() + 2);
       },
       {"dataset: ", "no column besides"}},
      {"pixels of another size",
       [](auto& data, auto& spec) {
         data.columns[1].missing = 0;
         spec.dataset.image.height = spec.dataset.image.width = 2;
       },
       {"dataset.image: 1 x 2 x 2 pixels, but the table has 2 columns"}},
      {"pixels that are missing",
       [](auto&, auto& spec) { spec.dataset.image.height = spec.dataset.image.width = 1; },
       {"dataset.image: ", "all its pixels", "width"}},
      {"few rows",
       [](auto& data, auto&) { data.rows = 2; },
       {"dataset.split: ", "2 rows", "validation"}},
  };
  for (const Case& c : cases) {
    storage::DatasetManifest data = Iris();
    spec::JobSpec spec;
    c.spoil(data, spec);
    const auto facts = CheckDataset(data, spec);
    ASSERT_FALSE(facts.ok()) << c.name;
    EXPECT_EQ(facts.status().code(), StatusCode::kInvalidArgument);
    for (const auto& text : c.said)
      EXPECT_THAT(facts.status().message(), HasSubstr(text)) << c.name;
  }
}

TEST(DatasetCheckTest, OnlyTheFeaturesOfAGivenModelMatter) {
  storage::DatasetManifest data = Iris();
  data.columns.insert(data.columns.begin(), {"note", ColumnType::kText, {"x"}, 0});
  const auto model = IrisModel();
  EXPECT_FALSE(CheckDataset(data, {}).ok());
  EXPECT_TRUE(CheckDataset(data, {}, &model).ok());
}

TEST(DatasetCheckTest, TextColumnsNeedNoNumbers) {
  storage::DatasetManifest data = Iris();
  data.columns[0] = {"note", ColumnType::kText, {}, 0};
  spec::JobSpec spec;
  spec.dataset.text = "note";
  const auto facts = CheckDataset(data, spec);
  ASSERT_TRUE(facts.ok()) << facts.status().ToString();
  EXPECT_EQ(facts->input, "tokens");
  EXPECT_TRUE(facts->features.empty());
  spec.dataset.text = "width";
  EXPECT_THAT(CheckDataset(data, spec).status().message(),
              HasSubstr("dataset.text: \"width\" holds numbers, not text"));
  spec.dataset.text = "body";
  EXPECT_THAT(CheckDataset(data, spec).status().message(),
              HasSubstr("dataset.text: no column \"body\" in the data: there are note, width"));
  spec.dataset.text = "";
  spec.loss = "next_token";
  EXPECT_THAT(CheckDataset(data, spec).status().message(), HasSubstr("next_token needs text"));
}

TEST(DatasetCheckTest, ChatsAreRowsOfATableAndFitTheModel) {
  storage::DatasetManifest data = Iris();
  data.columns[0] = {"chat", ColumnType::kText, {}, 0};
  spec::JobSpec spec;
  spec.kind = spec::JobKind::kBatch;
  spec.batch.emplace();
  spec.loss = "next_token";
  spec.dataset.messages = "chat";
  storage::ModelManifest model;
  model.input.kind = "tokens";
  model.input.per_token = true;
  model.input.context = 512;
  EXPECT_TRUE(CheckDataset(data, spec, &model).ok());
  spec.dataset.context = 512;
  EXPECT_TRUE(CheckDataset(data, spec, &model).ok());
  spec.dataset.context = 513;
  EXPECT_EQ(CheckDataset(data, spec, &model).status().message(),
            "dataset.context: 513, but the model has learned to read 512");
  spec.dataset.context = 0;
  for (const auto kind : {storage::DatasetKind::kText, storage::DatasetKind::kTokens,
                          storage::DatasetKind::kImages}) {
    data.kind = kind;
    EXPECT_THAT(CheckDataset(data, spec, &model).status().message(),
                HasSubstr("dataset.messages: names a column of a table"));
  }
}

TEST(DatasetCheckTest, ABatchPredictionNeedsNoLabelAndNoSplit) {
  storage::DatasetManifest data = Iris();
  data.columns.pop_back();
  data.rows = 1;
  spec::JobSpec spec;
  spec.kind = spec::JobKind::kBatch;
  spec.batch.emplace();
  const auto model = IrisModel();
  EXPECT_TRUE(CheckDataset(data, spec, &model).ok());
  spec.batch->output.rows = "test";
  EXPECT_THAT(CheckDataset(data, spec, &model).status().message(), HasSubstr("dataset.label"));
}

TEST(DatasetCheckTest, PicturesAndStreamsLearnWhatTheyCan) {
  storage::DatasetManifest pictures;
  pictures.kind = storage::DatasetKind::kImages;
  pictures.rows = 50;
  pictures.classes = {"cat", "dog"};
  spec::JobSpec spec;
  EXPECT_EQ(CheckDataset(pictures, spec)->input, "images");
  spec.loss = "mse";
  EXPECT_THAT(CheckDataset(pictures, spec).status().message(), HasSubstr("loss: pictures"));
  spec.loss = "cross_entropy";
  pictures.classes = {"cat"};
  EXPECT_THAT(CheckDataset(pictures, spec).status().message(), HasSubstr("nothing to learn"));

  storage::DatasetManifest tokens;
  tokens.kind = storage::DatasetKind::kTokens;
  tokens.rows = 12800;
  EXPECT_THAT(CheckDataset(tokens, spec).status().message(), HasSubstr("use next_token"));
  spec.loss = "next_token";
  EXPECT_EQ(CheckDataset(tokens, spec)->train_rows, 80);
  EXPECT_THAT(
      CheckModelFits("model.from", "m@1", IrisModel(), *CheckDataset(tokens, spec), spec).message(),
      HasSubstr("m@1 takes features, but the data is tokens"));
}

TEST(ModelFitTest, TeachersAndStartingModelsMustFitTheData) {
  const auto facts = CheckDataset(Iris(), {});
  ASSERT_TRUE(facts.ok());
  spec::JobSpec spec;
  EXPECT_TRUE(CheckModelFits("teacher", "t@1", IrisModel(), *facts, spec).ok());

  auto wide = IrisModel();
  wide.feature_names.push_back("height");
  EXPECT_THAT(CheckModelFits("model.from", "m@1", wide, *facts, spec).message(),
              HasSubstr("model.from: m@1 needs columns that the dataset lacks: height"));

  auto fewer = IrisModel();
  fewer.classes = {"a", "b"};
  EXPECT_THAT(CheckModelFits("model.from", "m@1", fewer, *facts, spec).message(),
              HasSubstr("knows no class \"c\""));

  auto more = IrisModel();
  more.classes.push_back("d");
  EXPECT_TRUE(CheckModelFits("model.from", "m@1", more, *facts, spec).ok());
  EXPECT_THAT(CheckModelFits("teacher", "t@1", more, *facts, spec).message(),
              HasSubstr("teacher: t@1 has the classes a, b, c, d"));
  auto other = IrisModel();
  other.classes = {"a", "b", "d"};
  EXPECT_THAT(CheckModelFits("teacher", "t@1", other, *facts, spec).message(),
              HasSubstr("teacher: t@1 knows no class \"c\""));
  auto turned = IrisModel();
  turned.classes = {"c", "a", "b"};  // as a folder's id2label may have them
  EXPECT_TRUE(CheckModelFits("teacher", "t@1", turned, *facts, spec).ok());

  // A class per token of a text: something to start from, and nothing else.
  auto tokens = IrisModel();
  tokens.input.kind = "tokens";
  tokens.input.per_token = true;
  tokens.feature_names = {};
  tokens.model_spec_json = R"({"arch": "transformer"})";
  DatasetFacts texts = *facts;
  texts.input = "tokens";
  EXPECT_TRUE(CheckModelFits("model.from", "m@1", tokens, texts, spec).ok());
  for (const auto kind : {spec::JobKind::kBatch, spec::JobKind::kEvaluate}) {
    spec::JobSpec asks;
    asks.kind = kind;
    EXPECT_THAT(CheckModelFits("model.from", "m@1", tokens, texts, asks).message(),
                HasSubstr("model.from: m@1 gives a class per token"));
  }
  EXPECT_THAT(CheckModelFits("teacher", "t@1", tokens, texts, spec).message(),
              HasSubstr("teacher: t@1 gives a class per token"));

  auto regression = IrisModel();
  regression.classes = {};
  regression.loss = "mse";
  EXPECT_THAT(CheckModelFits("teacher", "t@1", regression, *facts, spec).message(),
              HasSubstr("trained with loss mse"));
}

}  // namespace
}  // namespace lepton::api
