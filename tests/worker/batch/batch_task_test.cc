// Whole predictions: a model is trained, then asked by gangs of several sizes.
#include "worker/batch/batch_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "storage/datasets/table.h"
#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

using ::testing::HasSubstr;
using testing::Rank;
using ::testing::StartsWith;

class BatchTaskTest : public testing::TaskTest {
 protected:
  void Train(const storage::Digest& dataset, const std::string& yaml,
             const std::string& tokenizer = "") {
    start_.set_dataset_manifest(dataset);
    start_.set_tokenizer(tokenizer);
    const auto ranks = RunGang(RunTrain, Spec(yaml), start_);
    ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    start_.set_model_manifest(ranks[0].task->result.model_manifest());
  }
  storage::Digest ImportAs(const std::string& format, std::string_view bytes) {
    storage::ImportOptions options;
    options.format = format;
    return storage::ImportFile(*objects_, storage::ByteSource::FromMemory(bytes), options)
        .value()
        .digest;
  }
  std::vector<Rank> Ask(const std::string& rest, int ranks = 1,
                        const std::function<void(testing::FakeTask&)>& prepare = {}) {
    return RunGang(RunBatch,
                   Spec("{kind: batch, dataset: {name: data}, model: any@1, " + rest + "}"), start_,
                   ranks, prepare);
  }
  std::string FileOf(const Rank& rank, const std::string& name) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    const auto& files = rank.task->result.files();
    const auto found = files.find(name);
    EXPECT_NE(found, files.end()) << name;
    return found == files.end() ? "" : objects_->Get(found->second).value();
  }
  wire::StartTask start_;
};

constexpr char kBlobs[] =
    "{kind: train, dataset: {name: data}, model: {hidden: [16]}, optimizer: {lr: 0.01}}";

TEST_F(BatchTaskTest, EveryRowIsThereInOrderWithTheSameBytesForAnyNumberOfRanks) {
  Train(Import(testing::BlobsCsv(2000, 3)), kBlobs);
  // The answers need no label; a column too many does not matter.
  const std::string rows = testing::BlobsCsv(3001, 3, 5);
  std::string unlabelled;
  for (size_t begin = 0; begin < rows.size();) {
    const size_t end = rows.find('\n', begin);
    unlabelled += rows.substr(begin, rows.rfind(',', end) - begin) + "\n";
    begin = end + 1;
  }
  start_.set_dataset_manifest(Import(unlabelled));
  const std::string one = FileOf(Ask("output: csv")[0], "predictions.csv");
  EXPECT_THAT(one, StartsWith("row,label,probability_0,probability_1,probability_2\n0,"));
  const auto table = storage::ReadCsv(one);
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  ASSERT_EQ(table->rows, 3001);
  int right = 0;
  for (int64_t row = 0; row < table->rows; ++row) {
    EXPECT_EQ(table->columns[0].values[row], static_cast<double>(row));
    EXPECT_NEAR(table->columns[2].values[row] + table->columns[3].values[row] +
                    table->columns[4].values[row],
                1, 1e-5);
    right += table->columns[1].values[row] == static_cast<double>(row % 3);
  }
  EXPECT_GT(right, 2900);
  for (const int ranks : {2, 3, 4}) {
    EXPECT_EQ(FileOf(Ask("output: csv", ranks)[0], "predictions.csv"), one) << ranks << " ranks";
  }
}

TEST_F(BatchTaskTest, PartsOfTheSplitAndJsonLines) {
  Train(Import(testing::LineCsv(300)),
        "{kind: train, dataset: {name: data}, loss: mse, model: {hidden: [8]}}");
  const auto asked = Ask("output: {format: jsonl, rows: test}");
  const std::string lines = FileOf(asked[0], "predictions.jsonl");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 30);
  EXPECT_EQ(asked[0].metric("rows"), 30);
  const auto first = nlohmann::json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_TRUE(first["value"].is_number());
  EXPECT_FALSE(first.contains("label"));
}

TEST_F(BatchTaskTest, GoesOnBehindItsCheckpoint) {
  Train(Import(testing::BlobsCsv(9000, 3)), kBlobs);
  const std::string whole = FileOf(Ask("output: csv", 2)[0], "predictions.csv");
  // Told to stop at once, it stores what the first round gave.
  const auto stopped = Ask("output: csv", 2, [](testing::FakeTask& task) { task.stop = true; });
  ASSERT_EQ(stopped[0].status.code(), StatusCode::kCancelled);
  ASSERT_EQ(stopped[0].task->checkpoints.size(), 1u);
  const auto& checkpoint = stopped[0].task->checkpoints[0];
  EXPECT_EQ(checkpoint.step(), 2u * 4 * 256);
  EXPECT_EQ(checkpoint.objects_size(), 1);
  start_.set_resume_checkpoint(checkpoint.manifest());
  for (const int ranks : {1, 2, 3}) {
    const auto resumed = Ask("output: csv", ranks);
    EXPECT_EQ(FileOf(resumed[0], "predictions.csv"), whole) << ranks << " ranks";
    EXPECT_EQ(resumed[0].metric("rows"), 9000);
  }
}

constexpr char kGpt[] =
    "{kind: train, loss: next_token, batch_size: 4, epochs: 60, dataset: {name: data, context: "
    "16}, "
    "model: {arch: transformer, layers: 1, heads: 2, width: 32}, optimizer: {lr: 0.01}}";

TEST_F(BatchTaskTest, LanguageModelsSayHowLikelyRowsAreAndGoOn) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "abcdefgh";
  Train(ImportAs("text", text), kGpt, "bytes");
  start_.set_dataset_manifest(ImportAs("csv", "id,text\n1,abcdefghab\n2,hgfedcba\n3,cd\n4,a\n"));
  const auto asked =
      RunGang(RunBatch,
              Spec("{kind: batch, dataset: {name: data, text: text}, model: any@1, output: jsonl, "
                   "generate: {max_tokens: 6}}"),
              start_, 2);
  const std::string lines = FileOf(asked[0], "predictions.jsonl");
  std::vector<nlohmann::json> rows;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = lines.find('\n', begin);
    rows.push_back(nlohmann::json::parse(lines.substr(begin, end - begin)));
    begin = end + 1;
  }
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["tokens"], 9);
  EXPECT_LT(rows[0]["perplexity"].get<double>(), 1.5);
  EXPECT_GT(rows[1]["perplexity"].get<double>(), 5);
  EXPECT_EQ(rows[0]["generated"], "cdefgh");
  EXPECT_EQ(rows[2]["generated"], "efghab");
  EXPECT_TRUE(rows[3]["loss"].is_null()) << "one token predicts nothing";
  EXPECT_EQ(asked[0].metric("rows"), 4);

  // A stream: its windows, by position.
  start_.set_dataset_manifest(ImportAs("text", text));
  const std::string windows = FileOf(Ask("output: csv")[0], "predictions.csv");
  EXPECT_THAT(windows, StartsWith("position,tokens,loss,perplexity\n0,16,"));
  EXPECT_THAT(windows, HasSubstr("\n16,16,"));
}

TEST_F(BatchTaskTest, WhatAModelCannotDoIsRefused) {
  Train(Import(testing::BlobsCsv(200, 3)), kBlobs);
  EXPECT_THAT(Ask("output: csv, generate: {max_tokens: 4}")[0].status.message(),
              HasSubstr("generate: the model is no language model"));
  start_.set_dataset_manifest(Import("a,b\n1,2\n"));
  EXPECT_THAT(Ask("output: csv")[0].status.message(), HasSubstr("feature \"c\" of the model"));
  start_.set_dataset_manifest(ImportAs("text", "some text"));
  EXPECT_THAT(Ask("output: csv")[0].status.message(),
              HasSubstr("the model takes features of a table's columns, but the data is text"));
}

}  // namespace
}  // namespace lepton::worker
