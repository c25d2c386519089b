// Whole predictions: a model is trained, then asked by gangs of several sizes, whose ranks die.
#include "worker/batch/batch_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "storage/datasets/table.h"
#include "tests/worker/batch/shard_board.h"
#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/batch/generation.h"
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
  // The file that `ranks` make together; ranks that die are followed by others until all is done.
  std::string Ask(const std::string& rest, int ranks = 1, uint32_t seed = 1, double deaths = 0,
                  const std::string& data = "{name: data}") {
    const spec::JobSpec spec =
        Spec("{kind: batch, dataset: " + data + ", model: any@1, " + rest + "}");
    board_ = std::make_unique<testing::ShardBoard>(seed, deaths);
    for (int gang = 0; gang < 1000 && !board_->complete(); ++gang) {
      const auto asked = RunGang(RunBatch, spec, start_, ranks, [&](testing::FakeTask& task) {
        task.shard_source = std::make_shared<testing::ShardBoard::Source>(*board_);
      });
      for (const Rank& rank : asked) {
        const bool expected = rank.status.code() == StatusCode::kCancelled ||
                              rank.status.message() == "batch: killed";
        EXPECT_TRUE(expected) << rank.status.ToString();
      }
    }
    EXPECT_EQ(board_->differing(), 0);
    return board_->File(*objects_);
  }
  std::string Refusal(const std::string& rest) {
    testing::ShardBoard board;
    const auto asked =
        RunGang(RunBatch, Spec("{kind: batch, dataset: {name: data}, model: any@1, " + rest + "}"),
                start_, 1, [&](testing::FakeTask& task) {
                  task.shard_source = std::make_shared<testing::ShardBoard::Source>(board);
                });
    return asked[0].status.message();
  }
  std::unique_ptr<testing::ShardBoard> board_;
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
  const std::string one = Ask("output: csv");
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
    EXPECT_EQ(Ask("output: csv", ranks), one) << ranks << " ranks";
  }
  // However the rows are cut.
  EXPECT_EQ(Ask("output: {shard_rows: 1}"), one);
  EXPECT_EQ(board_->shard_rows(), 256) << "whole blocks";
  EXPECT_EQ(Ask("output: {shard_rows: 1000}", 2), one);
  EXPECT_EQ(board_->shard_rows(), 1024);
}

TEST_F(BatchTaskTest, AnyScheduleOfDeathsGivesTheSameBytes) {
  Train(Import(testing::BlobsCsv(2000, 3)), kBlobs);
  start_.set_dataset_manifest(Import(testing::BlobsCsv(4000, 3, 5)));
  const std::string calm = Ask("output: jsonl");
  int died = 0;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    const int ranks = 1 + static_cast<int>(seed % 4);
    EXPECT_EQ(Ask("output: {format: jsonl, shard_rows: 512}", ranks, seed, 0.2), calm)
        << "seed " << seed;
    died += board_->died();
  }
  EXPECT_GT(died, 12);
}

TEST(ShardRows, FollowTheDataAndTheWish) {
  EXPECT_EQ(ShardRows(0, 100, 256, 1, 4), 256);
  EXPECT_EQ(ShardRows(0, 1'000'000, 256, 1, 4), 15'872) << "64 shards of whole blocks";
  EXPECT_EQ(ShardRows(0, 100'000'000, 256, 1, 4), 65'536) << "no more is lost with a worker";
  EXPECT_EQ(ShardRows(1'000, 1'000'000, 256, 1, 4), 1'024);
  EXPECT_EQ(ShardRows(1, 100'000'000, 256, 1, 4), 6'144) << "at most 16,384 shards";
  EXPECT_EQ(ShardRows(0, 5, 1, 1, 1), 1);
  EXPECT_EQ(ShardRows(0, 1'000, 1, 64, 4), 64) << "texts are written together";
  EXPECT_EQ(ShardRows(0, 100, 1, 64, 4), 25) << "each worker has some";
  EXPECT_EQ(ShardRows(0, 10'000, 1, 64, 4), 156);
  EXPECT_EQ(ShardRows(5, 1'000, 1, 64, 4), 5);
}

TEST_F(BatchTaskTest, PartsOfTheSplitAndJsonLines) {
  Train(Import(testing::LineCsv(300)),
        "{kind: train, dataset: {name: data}, loss: mse, model: {hidden: [8]}}");
  const std::string lines = Ask("output: {format: jsonl, rows: test}");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 30);
  EXPECT_EQ(board_->rows(), 30);
  const auto first = nlohmann::json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_TRUE(first["value"].is_number());
  EXPECT_FALSE(first.contains("label"));
}

constexpr char kGpt[] =
    "{kind: train, loss: next_token, batch_size: 4, epochs: 60, dataset: {name: data, context: "
    "16}, "
    "model: {arch: transformer, layers: 1, heads: 2, width: 32}, optimizer: {lr: 0.01}}";

std::vector<nlohmann::json> JsonLines(const std::string& lines) {
  std::vector<nlohmann::json> rows;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = lines.find('\n', begin);
    rows.push_back(nlohmann::json::parse(lines.substr(begin, end - begin)));
    begin = end + 1;
  }
  return rows;
}

// Texts of several lengths are computed in several batches.
TEST_F(BatchTaskTest, TextsHaveTheAnswersInOrderThatEachHasAlone) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "abcdefgh";
  Train(ImportAs("text", text),
        "{kind: train, loss: next_token, batch_size: 4, epochs: 2, dataset: {name: data, context: "
        "128}, model: {arch: transformer, layers: 1, heads: 2, width: 32}, optimizer: {lr: 0.01}}",
        "bytes");
  const auto ask = [&](const std::vector<size_t>& lengths) {
    std::string csv = "text\n";
    for (const size_t length : lengths) csv += text.substr(length % 5, length) + "\n";
    start_.set_dataset_manifest(ImportAs("csv", csv));
    return JsonLines(Ask("output: jsonl, generate: {max_tokens: 3, temperature: 0}", 1, 1, 0,
                         "{name: data, text: text}"));
  };
  const std::vector<size_t> lengths = {90, 5, 120, 60, 6, 61, 7, 119, 30, 31};
  const std::vector<nlohmann::json> together = ask(lengths);
  ASSERT_EQ(together.size(), lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::vector<nlohmann::json> alone = ask({lengths[i]});
    ASSERT_EQ(alone.size(), 1u);
    EXPECT_EQ(together[i]["row"], i);
    alone[0]["row"] = i;
    EXPECT_EQ(together[i], alone[0]);
  }
}

// Each token by a pass over all of its text.
std::vector<uint32_t> GoOnPlainly(LoadedModel& model, TokenText text, int64_t number,
                                  const spec::GenerateSpec& options) {
  const int64_t context = model.manifest().input.context;
  BatchBuffer buffer(model.signature());
  std::vector<uint32_t> said;
  for (int64_t token = 0; token < options.max_tokens; ++token) {
    while (static_cast<int64_t>(text.ids.size()) > context) text.ids.erase(text.ids.begin());
    EXPECT_TRUE(FillTexts(std::span(&text, 1), context, buffer).ok());
    std::vector<float> logits(buffer.sequence() * model.outputs());
    EXPECT_TRUE(model.Forward(buffer.batch(), logits).ok());
    const uint64_t bits = ExampleDraw(options.seed, static_cast<uint64_t>(token),
                                      static_cast<uint64_t>(number), /*purpose=*/4);
    const uint32_t next = ChooseToken(
        std::span(logits).subspan((text.ids.size() - 1) * model.outputs(), model.outputs()),
        options.temperature, static_cast<double>(bits >> 11) * 0x1p-53);
    if (model.IsEnd(next)) break;
    said.push_back(next);
    text.ids.push_back(static_cast<int32_t>(next));
  }
  return said;
}

// More texts than are computed at once, which begin with any length and outgrow the context.
TEST_F(BatchTaskTest, TextsGoOnAsIfAllWereComputedForEachToken) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "abcdefgh";
  Train(ImportAs("text", text), kGpt, "bytes");
  for (const char* precision : {"f32", "bf16"}) {
    const auto model = LoadedModel::Load(*objects_, start_.model_manifest(), precision).value();
    ASSERT_TRUE(model->Decoder({.slots = 2, .context = 16}).ok());
    std::vector<std::vector<int32_t>> prompts;
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < 70; ++i) {
      const std::string_view prompt = std::string_view(text).substr(i % 8, i % 18);
      prompts.emplace_back(prompt.begin(), prompt.end());
      numbers.push_back(static_cast<int64_t>(1000 + i));
    }
    spec::GenerateSpec options;
    options.max_tokens = 12;
    options.temperature = 1.5;
    options.seed = 5;
    const auto said = Generate(*model, prompts, numbers, options);
    ASSERT_TRUE(said.ok()) << said.status().ToString();
    ASSERT_EQ(said->size(), prompts.size());
    std::set<std::vector<uint32_t>> different;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const TokenText plain{prompts[i].empty() ? std::vector<int32_t>{0} : prompts[i], {}};
      EXPECT_EQ((*said)[i], GoOnPlainly(*model, plain, numbers[i], options)) << "prompt " << i;
      different.insert((*said)[i]);
    }
    EXPECT_GT(different.size(), 30u);
  }
}

TEST_F(BatchTaskTest, LanguageModelsSayHowLikelyRowsAreAndGoOn) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "abcdefgh";
  Train(ImportAs("text", text), kGpt, "bytes");
  start_.set_dataset_manifest(ImportAs("csv", "id,text\n1,abcdefghab\n2,hgfedcba\n3,cd\n4,a\n"));
  const std::vector<nlohmann::json> rows = JsonLines(
      Ask("output: jsonl, generate: {max_tokens: 6}", 2, 1, 0, "{name: data, text: text}"));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["tokens"], 9);
  EXPECT_LT(rows[0]["perplexity"].get<double>(), 1.5);
  EXPECT_GT(rows[1]["perplexity"].get<double>(), 5);
  EXPECT_EQ(rows[0]["generated"], "cdefgh");
  EXPECT_EQ(rows[2]["generated"], "efghab");
  EXPECT_TRUE(rows[3]["loss"].is_null()) << "one token predicts nothing";
  EXPECT_EQ(board_->rows(), 4);

  // A stream: its windows, by position.
  start_.set_dataset_manifest(ImportAs("text", text));
  const std::string windows = Ask("output: csv");
  EXPECT_GT(board_->loss(), 0);
  EXPECT_THAT(windows, StartsWith("position,tokens,loss,perplexity\n0,16,"));
  EXPECT_THAT(windows, HasSubstr("\n16,16,"));

  // Full windows go on behind their last target, and so does the last one, which is not full.
  const std::vector<nlohmann::json> parts =
      JsonLines(Ask("output: jsonl, generate: {max_tokens: 4, temperature: 0}"));
  ASSERT_EQ(parts.size(), 30u);
  EXPECT_EQ(parts[0]["generated"], "bcde");
  EXPECT_EQ(parts[29]["tokens"], 15);
  EXPECT_EQ(parts[29]["generated"], "abcd");
}

// A stop, a drain or another rank's being first is heard while texts are written.
TEST_F(BatchTaskTest, TextsThatAreWrittenHearAStop) {
  struct Stopping final : testing::ShardBoard::Source {
    using Source::Source;
    Status GoOn(const Shard&, Duration left) override {
      lefts.push_back(left);
      return lefts.size() > 2 ? Cancelled("stopped") : Status::Ok();
    }
    std::vector<Duration> lefts;
  };
  std::string text;
  for (int i = 0; i < 60; ++i) text += "abcdefgh";
  Train(ImportAs("text", text), kGpt, "bytes");
  start_.set_dataset_manifest(ImportAs("csv", "text\nabc\nbcd\n"));
  testing::ShardBoard board;
  const auto source = std::make_shared<Stopping>(board);
  const auto asked =
      RunGang(RunBatch,
              Spec("{kind: batch, dataset: {name: data, text: text}, model: any@1, output: jsonl, "
                   "generate: {max_tokens: 100}}"),
              start_, 1, [&](testing::FakeTask& task) { task.shard_source = source; });
  EXPECT_EQ(asked[0].status.code(), StatusCode::kCancelled) << asked[0].status.ToString();
  ASSERT_EQ(source->lefts.size(), 3u);
  EXPECT_EQ(source->lefts[0], Duration::zero());
  EXPECT_GT(source->lefts[1], Duration::zero());
}

TEST(WholeTexts, AreAsManyAsTheirLogitsHaveRoom) {
  EXPECT_EQ(WholeTextsAtOnce(16, 256), 16);
  EXPECT_EQ(WholeTextsAtOnce(256, 16384), 4);
  EXPECT_EQ(WholeTextsAtOnce(1024, 50257), 1);
  EXPECT_EQ(WholeTextsAtOnce(int64_t{1} << 40, int64_t{1} << 30), 1);
}

TEST_F(BatchTaskTest, ARowWithoutAnAnswerHasNone) {
  Train(Import(testing::BlobsCsv(200, 3)), kBlobs);
  start_.set_dataset_manifest(Import("a,b,c\n1,2,3\n1,1e300,-1e300\n"));
  const std::vector<nlohmann::json> rows = JsonLines(Ask("output: {format: jsonl, rows: all}"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_NE(rows[0]["label"], "");
  EXPECT_EQ(rows[1]["label"], "");
  ASSERT_FALSE(rows[1]["probabilities"].empty());
  for (const auto& probability : rows[1]["probabilities"]) EXPECT_TRUE(probability.is_null());
}

TEST_F(BatchTaskTest, WhatAModelCannotDoIsRefused) {
  Train(Import(testing::BlobsCsv(200, 3)), kBlobs);
  EXPECT_THAT(Refusal("output: csv, generate: {max_tokens: 4}"),
              HasSubstr("generate: the model is no language model"));
  start_.set_dataset_manifest(Import("a,b\n1,2\n"));
  EXPECT_THAT(Refusal("output: csv"), HasSubstr("feature \"c\" of the model"));
  start_.set_dataset_manifest(ImportAs("text", "some text"));
  EXPECT_THAT(Refusal("output: csv"),
              HasSubstr("the model takes features of a table's columns, but the data is text"));
}

}  // namespace
}  // namespace lepton::worker
