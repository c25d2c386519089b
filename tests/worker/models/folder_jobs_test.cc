// What jobs make of models that came as Hugging Face folders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/runtime/huggingface/loaded_folder.h"
#include "tests/worker/batch/shard_board.h"
#include "tests/worker/data/tiny_tokenizer.h"
#include "tests/worker/train/fake_task.h"
#include "worker/batch/batch_task.h"
#include "worker/evaluate/evaluate_task.h"
#include "worker/models/huggingface_models.h"

namespace lepton::worker {
namespace {

using ::testing::HasSubstr;
using testing::Rank;

class FolderJobsTest : public testing::TaskTest {
 protected:
  void Start(const std::string& golden, const std::string& csv) {
    const auto folder = huggingface::OpenFilesOf(huggingface::Golden(golden)).value();
    start_.set_model_manifest(ImportFolder(*objects_, folder).value().manifest);
    start_.set_tokenizer(objects_->Put(testing::TinyTokenizerJson()).value());
    start_.set_dataset_manifest(Import(csv));
  }
  Rank Run(TaskFunction function, const std::string& rest) {
    const spec::JobSpec spec = Spec("{dataset: {name: data, text: text}, model: any@1, " + rest);
    std::vector<Rank> ranks = RunGang(function, spec, start_, 1, [&](testing::FakeTask& task) {
      task.shard_source = std::make_shared<testing::ShardBoard::Source>(board_);
    });
    return std::move(ranks[0]);
  }

  testing::ShardBoard board_;
  wire::StartTask start_;
};

TEST_F(FolderJobsTest, ABodysNumbersAreAllThere) {
  Start("bert-base", "text\nthe cat\na good film\n");
  const Rank csv = Run(RunBatch, "kind: batch, output: csv}");
  ASSERT_TRUE(board_.complete()) << csv.status.ToString();
  const std::string lines = board_.File(*objects_);
  const std::string header = lines.substr(0, lines.find('\n'));
  EXPECT_EQ(header, "row,value_0,value_1,value_2,value_3,value_4,value_5,value_6,value_7");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), ','), 3 * 8);
}

TEST_F(FolderJobsTest, ASentenceModelsRowsHaveLengthOne) {
  Start("bert-sentences", "text\nthe cat\na good film that the dog sat on with the cat\n\"\"\n");
  const Rank rank = Run(RunBatch, "kind: batch, output: jsonl}");
  ASSERT_TRUE(board_.complete()) << rank.status.ToString();
  std::istringstream lines(board_.File(*objects_));
  int rows = 0;
  for (std::string line; std::getline(lines, line); ++rows) {
    const auto values = nlohmann::json::parse(line)["values"].get<std::vector<double>>();
    ASSERT_EQ(values.size(), 8u) << line;
    double sum = 0;
    for (const double value : values) sum += value * value;
    EXPECT_NEAR(sum, 1, 1e-6) << line;
  }
  EXPECT_EQ(rows, 3);
}

TEST_F(FolderJobsTest, AClassPerTokenIsNoAnswerOfARow) {
  Start("bert-tokens", "text,label\nthe cat,low\na good film,high\n");
  EXPECT_THAT(Run(RunBatch, "kind: batch, output: csv}").status.message(),
              HasSubstr("model.from: the model gives a class per token"));
  EXPECT_THAT(Run(RunEvaluate, "kind: evaluate}").status.message(),
              HasSubstr("model.from: the model gives a class per token"));
}

}  // namespace
}  // namespace lepton::worker
