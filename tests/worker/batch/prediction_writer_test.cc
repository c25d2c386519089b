#include "worker/batch/prediction_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "worker/batch/generation.h"

namespace lepton::worker {
namespace {

std::string Line(const PredictionWriter& writer, const RowAnswer& answer) {
  std::string out;
  writer.Append(answer, &out);
  return out;
}

TEST(PredictionWriter, ClassesAndTheirProbabilities) {
  RowAnswer answer;
  answer.row = 7;
  answer.file = "a, b/1.png";
  answer.prediction = {1, "so \"called\"", {0.25f, 0.75f}};
  PredictionWriter::Options options{.classes = {"x,y", "so \"called\""}, .files = true};
  const PredictionWriter csv(options);
  EXPECT_EQ(csv.FileName(), "predictions.csv");
  EXPECT_EQ(csv.Header(), "row,file,label,\"probability_x,y\",\"probability_so \"\"called\"\"\"\n");
  EXPECT_EQ(Line(csv, answer), "7,\"a, b/1.png\",\"so \"\"called\"\"\",0.25,0.75\n");
  options.format = "jsonl";
  const PredictionWriter jsonl(options);
  EXPECT_EQ(jsonl.Header(), "");
  const auto line = nlohmann::json::parse(Line(jsonl, answer));
  EXPECT_EQ(line["probabilities"]["x,y"], 0.25);
  EXPECT_EQ(line["file"], "a, b/1.png");
  EXPECT_EQ(line["label"], "so \"called\"");
}

TEST(PredictionWriter, ValuesTokensAndWhatIsNoNumber) {
  RowAnswer answer;
  answer.values = {0.1f};
  const PredictionWriter values({.kind = PredictionWriter::Kind::kValues});
  EXPECT_EQ(values.Header() + Line(values, answer), "row,value\n0,0.1\n");
  RowAnswer several;
  several.values = {0.5f, std::nanf(""), -1};
  PredictionWriter::Options three{.kind = PredictionWriter::Kind::kValues, .values = 3};
  const PredictionWriter columns(three);
  EXPECT_EQ(columns.Header() + Line(columns, several), "row,value_0,value_1,value_2\n0,0.5,,-1\n");
  three.format = "jsonl";
  EXPECT_EQ(Line(PredictionWriter(three), several), "{\"row\":0,\"values\":[0.5,null,-1]}\n");
  answer.tokens = 3;
  answer.loss = 0;
  answer.generated = "a\nb \x01";
  PredictionWriter::Options options{
      .kind = PredictionWriter::Kind::kTokens, .positions = true, .generated = true};
  const PredictionWriter csv(options);
  EXPECT_EQ(csv.Header(), "position,tokens,loss,perplexity,generated\n");
  EXPECT_EQ(Line(csv, answer), "0,3,0,1,\"a\nb \x01\"\n");
  answer.loss = std::nan("");
  EXPECT_EQ(Line(csv, answer), "0,3,,,\"a\nb \x01\"\n");
  options.losses = false;
  EXPECT_FALSE(PredictionWriter(options).losses());
  EXPECT_EQ(PredictionWriter(options).Header() + Line(PredictionWriter(options), answer),
            "position,generated\n0,\"a\nb \x01\"\n");
  options.losses = true;
  options.format = "jsonl";
  const auto line = nlohmann::json::parse(Line(PredictionWriter(options), answer));
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_EQ(line["generated"], "a\nb \x01");
}

TEST(ChooseToken, TheLikeliestOrByTheDraw) {
  const std::vector<float> logits = {0, std::log(3.0f), std::log(4.0f)};
  EXPECT_EQ(ChooseToken(logits, 0, 0.01), 2u);
  EXPECT_EQ(ChooseToken(logits, 1, 0.12), 0u);
  EXPECT_EQ(ChooseToken(logits, 1, 0.13), 1u);
  EXPECT_EQ(ChooseToken(logits, 1, 0.49), 1u);
  EXPECT_EQ(ChooseToken(logits, 1, 0.51), 2u);
  EXPECT_EQ(ChooseToken(logits, 1, 0.999999), 2u);
  // Near zero the likeliest, far up all alike.
  EXPECT_EQ(ChooseToken(logits, 1e-3, 0.3), 2u);
  EXPECT_EQ(ChooseToken(logits, 1e6, 0.3), 0u);
}

}  // namespace
}  // namespace lepton::worker
