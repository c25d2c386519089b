#include "worker/data/prepared_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/data/normalize.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TableExamples& Rows(const ExamplesPtr& examples) {
  return dynamic_cast<const TableExamples&>(*examples);
}

class PreparedDataTest : public testing::TaskTest {
 protected:
  Result<PreparedData> Prepare(const std::string& csv, const std::string& loss = "cross_entropy",
                               const storage::ModelManifest* like = nullptr) {
    const Result<StoredDataset> stored = LoadDataset(*objects_, Import(csv));
    if (!stored.ok()) return stored.status();
    DerivedFiles derived(*objects_, [] { return false; });
    return PrepareData(*stored, {.dataset = dataset_, .loss = loss, .like = like},
                       {*objects_, derived});
  }
  std::string Error(const std::string& csv, const std::string& loss = "cross_entropy",
                    const storage::ModelManifest* like = nullptr) {
    const auto data = Prepare(csv, loss, like);
    if (data.ok()) return "no error";
    EXPECT_EQ(data.status().code(), StatusCode::kInvalidArgument);
    return data.status().message();
  }

  spec::DatasetSpec dataset_;
};

TEST_F(PreparedDataTest, SplitsAllRowsAndNormalisesByTheTrainingRows) {
  const auto data = Prepare(testing::BlobsCsv(200, 3));
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_THAT(data->feature_names, ElementsAre("a", "b", "c"));
  EXPECT_THAT(data->classes, ElementsAre("0", "1", "2"));
  EXPECT_EQ(data->label_name, "target");
  EXPECT_EQ(data->shape.outputs, 3);
  EXPECT_EQ(data->shape.features, 3);

  std::set<int64_t> rows;
  for (const ExamplesPtr& part : {data->train, data->validation, data->test}) {
    const auto numbers = Rows(part).row_numbers();
    rows.insert(numbers.begin(), numbers.end());
    EXPECT_EQ(Rows(part).x().size(), numbers.size() * 3);
    for (int64_t i = 0; i < part->rows(); ++i) {
      EXPECT_EQ(part->classes()[i], part->row_number(i) % 3);
    }
  }
  EXPECT_EQ(rows.size(), 200u);
  EXPECT_NEAR(static_cast<double>(data->train->rows()), 160, 3);

  for (int feature = 0; feature < 2; ++feature) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < data->train->rows(); ++i) {
      sum += Rows(data->train).x()[3 * i + feature];
      squares += std::pow(Rows(data->train).x()[3 * i + feature], 2);
    }
    EXPECT_NEAR(sum / static_cast<double>(data->train->rows()), 0, 1e-5);
    EXPECT_NEAR(squares / static_cast<double>(data->train->rows()), 1, 1e-4);
  }
  // The constant column: scale 1, so that it becomes 0 and not noise.
  EXPECT_EQ(data->mean[2], 5);
  EXPECT_EQ(data->scale[2], 1);
  EXPECT_EQ(Rows(data->test).x()[2], 0);
}

TEST_F(PreparedDataTest, WithoutNormalisationFeaturesAreTheRawNumbers) {
  dataset_.normalize = "none";
  const auto data = Prepare("a,target\n1,x\n2,y\n3,x\n4,y\n5,x\n6,y\n7,x\n8,y\n");
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  EXPECT_EQ(Rows(data->train).x()[0], static_cast<float>(Rows(data->train).row_numbers()[0] + 1));
  EXPECT_THAT(data->classes, ElementsAre("x", "y"));
}

TEST_F(PreparedDataTest, MissingCellsTakeTheMeanOrAreRefused) {
  std::string csv = "a,target\n";
  for (int i = 0; i < 40; ++i)
    csv += (i % 8 == 3 ? "" : std::to_string(i)) + "," + (i % 2 ? "y\n" : "x\n");
  const auto data = Prepare(csv);
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  for (int64_t i = 0; i < data->train->rows(); ++i) {
    const int64_t row = Rows(data->train).row_numbers()[i];
    const float expected =
        row % 8 == 3 ? 0.0f
                     : NormalizeValue(static_cast<double>(row), data->mean[0], data->scale[0]);
    EXPECT_EQ(Rows(data->train).x()[i], expected);
  }
  dataset_.missing = "error";
  EXPECT_THAT(Error(csv), HasSubstr("dataset.missing: column \"a\" has 5 missing cells"));
  dataset_.missing = "mean";
  dataset_.normalize = "none";
  EXPECT_THAT(Error(csv), HasSubstr("dataset.normalize: column \"a\""));
}

TEST_F(PreparedDataTest, RegressionAndBinaryLabelsBecomeValues) {
  const auto line = Prepare(testing::LineCsv(50), "mse");
  ASSERT_TRUE(line.ok()) << line.status().ToString();
  EXPECT_TRUE(line->classes.empty());
  EXPECT_TRUE(line->train->classes().empty());
  EXPECT_EQ(line->train->values().size(), Rows(line->train).row_numbers().size());
  EXPECT_EQ(line->shape.outputs, 1);

  const auto binary = Prepare(testing::BlobsCsv(60, 2), "binary_cross_entropy");
  ASSERT_TRUE(binary.ok()) << binary.status().ToString();
  EXPECT_EQ(binary->shape.outputs, 1);
  for (int64_t i = 0; i < binary->train->rows(); ++i) {
    EXPECT_EQ(binary->train->values()[i],
              static_cast<float>(Rows(binary->train).row_numbers()[i] % 2));
  }
}

TEST_F(PreparedDataTest, RefusesLabelsThatDoNotFit) {
  const std::string blobs = testing::BlobsCsv(60, 3);
  EXPECT_THAT(Error(blobs, "binary_cross_entropy"), HasSubstr("needs 2 classes"));
  EXPECT_THAT(Error("a,target\n1,x\n2,x\n3,x\n"), HasSubstr("only one class, \"x\""));
  EXPECT_THAT(Error("a,target\n1,x\n2,\n3,y\n"), HasSubstr("missing in 1 row"));
  EXPECT_THAT(Error("a,target\n1,x\n2,y\n3,y\n", "mse"), HasSubstr("holds text"));
  dataset_.label = "species";
  EXPECT_THAT(Error(blobs),
              HasSubstr("dataset.label: no column \"species\"; the columns are a, b, c, target"));
}

TEST_F(PreparedDataTest, RefusesFeaturesThatAreNotNumbers) {
  EXPECT_THAT(Error("a,b,target\n1,red,x\n2,blue,y\n3,red,x\n4,red,y\n"),
              HasSubstr("column \"b\" holds text (\"red\")"));
  EXPECT_THAT(Error("target\nx\ny\nx\ny\n"), HasSubstr("no column beside the label"));
}

// The split gives every class a training row if it can; with one row of each it cannot.
TEST_F(PreparedDataTest, AClassUnseenInTrainingIsNamed) {
  const std::string error = Error("a,target\n1,v\n2,w\n3,x\n4,y\n5,z\n");
  EXPECT_THAT(error, HasSubstr("dataset.split: class \""));
  EXPECT_THAT(error, HasSubstr("is unseen in training: its 1 row is in validation or test"));
}

TEST_F(PreparedDataTest, LikeAModelTakesItsFeaturesByNameAndItsNormalisation) {
  storage::ModelManifest model;
  model.feature_names = {"b", "a"};
  model.mean = {1, 2};
  model.scale = {2, 4};
  model.classes = {"1", "0", "2"};
  const auto data = Prepare(testing::BlobsCsv(60, 3), "cross_entropy", &model);
  ASSERT_TRUE(data.ok()) << data.status().ToString();
  const auto plain = LoadDataset(*objects_, Import(testing::BlobsCsv(60, 3)));
  ASSERT_TRUE(plain.ok());
  const int64_t row = Rows(data->test).row_numbers()[0];
  EXPECT_EQ(Rows(data->test).x()[0], NormalizeValue(plain->table.Find("b")->values[row], 1, 2));
  EXPECT_EQ(Rows(data->test).x()[1], NormalizeValue(plain->table.Find("a")->values[row], 2, 4));
  EXPECT_EQ(data->classes[data->test->classes()[0]], std::to_string(row % 3));

  model.classes = {"0", "1"};
  EXPECT_THAT(Error(testing::BlobsCsv(60, 3), "cross_entropy", &model),
              HasSubstr("row 3 has class \"2\", which was not seen in training"));
  model.classes = {"0", "1", "2"};
  model.feature_names = {"b", "z"};
  EXPECT_THAT(Error(testing::BlobsCsv(60, 3), "cross_entropy", &model),
              HasSubstr("feature \"z\" of the model is not a column"));
}

TEST(NormalizeValue, RoundsOnceAndClampsToFloat) {
  EXPECT_EQ(NormalizeValue(7, 3, 2), 2.0f);
  EXPECT_EQ(NormalizeValue(0.1, 0, 3), static_cast<float>(0.1 / 3));
  EXPECT_EQ(NormalizeValue(std::nan(""), 3, 2), 0.0f);
  EXPECT_EQ(NormalizeValue(1e300, 0, 1), std::numeric_limits<float>::max());
}

}  // namespace
}  // namespace lepton::worker
