#include "worker/data/token_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "runtime/base/file.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;

nn::Signature TokenSignature() {
  return {{{"tokens", {DType::kI32, {Shape::kBatch, Shape::kSequence}}}}, 1000, true};
}

// The tokens 0, 1, 2, ... as u16.
class TokenWindowsTest : public ::testing::Test {
 protected:
  std::shared_ptr<const TokenStream> Counting(int64_t count) {
    std::vector<uint16_t> ids(count);
    std::iota(ids.begin(), ids.end(), uint16_t{0});
    return Stream(ids);
  }
  template <typename Id>
  std::shared_ptr<const TokenStream> Stream(const std::vector<Id>& ids, uint64_t begin = 0) {
    const auto path = folder_.path() / std::to_string(files_++);
    std::string bytes(begin, '#');
    bytes.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id));
    EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
    auto file = MappedFile::Open(path);
    EXPECT_TRUE(file.ok());
    return std::make_shared<const TokenStream>(std::make_shared<MappedFile>(*std::move(file)),
                                               sizeof(Id), begin, static_cast<int64_t>(ids.size()));
  }
  struct Window {
    std::vector<int32_t> tokens, targets;
  };
  static std::vector<Window> Windows(const TokenWindows& examples, uint64_t epoch) {
    std::vector<Window> windows;
    BatchBuffer buffer(TokenSignature());
    for (int64_t i = 0; i < examples.rows(); ++i) {
      const int64_t row[] = {i};
      EXPECT_TRUE(examples.Fill(epoch, row, buffer).ok());
      const auto tokens = buffer.batch().inputs[0];
      const auto ids = tokens.span<const int32_t>();
      windows.push_back({{ids.begin(), ids.end()}, buffer.classes});
    }
    return windows;
  }

  TempFolder folder_;
  int files_ = 0;
};

TEST_F(TokenWindowsTest, TargetsAreTheTokensBehindAndNoTokenIsMetTwiceInAnEpoch) {
  const auto windows = TokenWindows::ForTraining(Counting(500), {100, 400}, 16, 7);
  // (300 - 16) / 16: what fits behind any origin.
  ASSERT_EQ(windows->rows(), 17);
  for (uint64_t epoch = 0; epoch < 20; ++epoch) {
    const int64_t origin = windows->Origin(epoch);
    EXPECT_GE(origin, 0);
    EXPECT_LT(origin, 16);
    std::set<int32_t> seen;
    for (const Window& window : Windows(*windows, epoch)) {
      for (int i = 0; i < 16; ++i) {
        EXPECT_EQ(window.targets[i], window.tokens[i] + 1);
        EXPECT_TRUE(seen.insert(window.tokens[i]).second);
      }
    }
    EXPECT_EQ(*seen.begin(), 100 + origin);
    EXPECT_LT(*seen.rbegin() + 1, 400) << "a target lies within the part";
    EXPECT_EQ(seen.size(), 17u * 16u);
  }
}

TEST_F(TokenWindowsTest, OriginsDependOnSeedAndEpochAlone) {
  const auto stream = Counting(500);
  const auto origins = [&](uint64_t seed) {
    const auto windows = TokenWindows::ForTraining(stream, {0, 500}, 32, seed);
    std::vector<int64_t> all;
    for (uint64_t epoch = 0; epoch < 40; ++epoch) all.push_back(windows->Origin(epoch));
    return all;
  };
  EXPECT_EQ(origins(1), origins(1));
  EXPECT_NE(origins(1), origins(2));
  const std::vector<int64_t> some = origins(1);
  EXPECT_GT(std::set<int64_t>(some.begin(), some.end()).size(), 15u);
}

TEST_F(TokenWindowsTest, EvaluationCoversEveryTargetOnce) {
  const auto windows = TokenWindows::ForEvaluation(Counting(100), {10, 61}, 16);
  ASSERT_EQ(windows->rows(), 4);  // 50 targets
  std::vector<int32_t> targets;
  for (const Window& window : Windows(*windows, 3)) {
    for (size_t i = 0; i < window.targets.size(); ++i) {
      if (window.targets[i] == nn::kNoTarget) {
        EXPECT_EQ(window.tokens[i], 0);
        continue;
      }
      EXPECT_EQ(window.targets[i], window.tokens[i] + 1);
      targets.push_back(window.targets[i]);
    }
  }
  std::vector<int32_t> wanted(50);
  std::iota(wanted.begin(), wanted.end(), 11);
  EXPECT_EQ(targets, wanted);
  EXPECT_EQ(windows->row_number(2), 10 + 32);
}

TEST_F(TokenWindowsTest, APartShorterThanAWindowIsOneShortWindow) {
  const auto stream = Counting(10);
  for (const auto& windows : {TokenWindows::ForTraining(stream, {2, 7}, 64, 1),
                              TokenWindows::ForEvaluation(stream, {2, 7}, 64)}) {
    ASSERT_EQ(windows->rows(), 1);
    const auto all = Windows(*windows, 5);
    EXPECT_THAT(all[0].tokens, ElementsAre(2, 3, 4, 5));
    EXPECT_THAT(all[0].targets, ElementsAre(3, 4, 5, 6));
  }
}

TEST_F(TokenWindowsTest, StreamsOfEveryWidthReadTheSame) {
  int32_t ids[3];
  Stream(std::vector<uint8_t>{9, 250, 7, 8})->Read(1, 3, ids);
  EXPECT_THAT(ids, ElementsAre(250, 7, 8));
  Stream(std::vector<uint16_t>{9, 65535, 7, 8}, 8)->Read(1, 3, ids);
  EXPECT_THAT(ids, ElementsAre(65535, 7, 8));
  Stream(std::vector<uint32_t>{9, 70000, 7, 8}, 8)->Read(1, 3, ids);
  EXPECT_THAT(ids, ElementsAre(70000, 7, 8));
}

}  // namespace
}  // namespace lepton::worker
