#include "runtime/nn/row_blocks.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <string>
#include <vector>

#include "runtime/nn/model_list.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {
namespace {

std::vector<int64_t> Blocks(int64_t rows, int64_t most, const RowCosts& costs) {
  std::vector<int64_t> blocks;
  for (int64_t left = rows; left > 0; left -= blocks.back()) {
    blocks.push_back(NextBlockRows(left, most, costs));
  }
  return blocks;
}

TEST(RowBlocks, PadWhereWeightsCostMoreThanTheirRows) {
  constexpr RowCosts kFeatures{1, 64};
  EXPECT_EQ(Blocks(1, 256, kFeatures), (std::vector<int64_t>{1}));
  EXPECT_EQ(Blocks(5, 256, kFeatures), (std::vector<int64_t>{8}));
  EXPECT_EQ(Blocks(33, 256, kFeatures), (std::vector<int64_t>{64}));
  EXPECT_EQ(Blocks(129, 256, kFeatures), (std::vector<int64_t>{128, 1}));
  EXPECT_EQ(Blocks(250, 256, kFeatures), (std::vector<int64_t>{256}));
  EXPECT_EQ(Blocks(600, 256, kFeatures), (std::vector<int64_t>{256, 256, 128}));
}

TEST(RowBlocks, SplitWhereRowsAreLong) {
  constexpr RowCosts kTexts{256, 64};
  EXPECT_EQ(Blocks(12, 16, kTexts), (std::vector<int64_t>{8, 4}));
  EXPECT_EQ(Blocks(15, 16, kTexts), (std::vector<int64_t>{8, 4, 2, 1}));
  EXPECT_EQ(Blocks(40, 16, kTexts), (std::vector<int64_t>{16, 16, 8}));
}

TEST(RowBlocks, CostNoMoreThanOnePaddedBlockOrNoPaddingAtAll) {
  for (const RowCosts& costs : {RowCosts{1, 64}, RowCosts{16, 64}, RowCosts{256, 64}}) {
    for (int64_t rows = 1; rows <= 256; ++rows) {
      int64_t sum = 0, cost = 0;
      for (const int64_t block : Blocks(rows, 256, costs)) {
        EXPECT_TRUE(std::has_single_bit(static_cast<uint64_t>(block)));
        sum += block;
        cost += block * costs.row + costs.block;
      }
      EXPECT_GE(sum, rows);
      const auto whole = static_cast<uint64_t>(rows);
      EXPECT_LE(cost, static_cast<int64_t>(std::bit_ceil(whole)) * costs.row + costs.block) << rows;
      EXPECT_LE(cost, rows * costs.row + std::popcount(whole) * costs.block) << rows;
    }
  }
}

// A forward pass says by the shapes of its kernels in which blocks it ran.
TEST(RowBlocks, AreWhatAForwardPassRunsIn) {
  graph::Profile profile;
  spec::ModelSpec model;
  model.arch = "transformer";
  model.transformer.style = "gpt2";
  model.transformer.layers = 1;
  model.transformer.heads = 2;
  model.transformer.width = 32;
  const DataShape data{.kind = DataShape::Kind::kTokens,
                       .vocabulary = 50,
                       .context = 64,
                       .outputs = 50,
                       .per_token = true};
  TrainingProgram::Options options;
  options.model = ResolveModel(model, data).value();
  options.profile = &profile;
  const Signature signature = MakeSignature(options.model, data).value();
  const auto program = TrainingProgram::Build(signature, options).value();
  std::vector<int32_t> tokens(12 * 64, 1);
  Batch batch;
  batch.inputs.push_back({tokens.data(), {DType::kI32, Shape({12, 64})}});
  std::vector<float> logits(Predictions(signature, batch) * signature.outputs);
  ASSERT_TRUE(program->Forward(batch, logits).ok());
  std::set<std::string> rows;
  for (const auto& [name, line] : profile.lines()) {
    for (const char* block : {"[4, 64, 32]", "[8, 64, 32]", "[12, 64, 32]", "[16, 64, 32]"}) {
      if (name.find(block) != std::string::npos) rows.insert(block);
    }
  }
  EXPECT_EQ(rows, (std::set<std::string>{"[4, 64, 32]", "[8, 64, 32]"}));
}

}  // namespace
}  // namespace lepton::nn
