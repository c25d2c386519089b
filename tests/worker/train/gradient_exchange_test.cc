// Buckets: which parameters, when they go out, and that neither they nor the overlap show in the
// bits of the sums.
#include "worker/train/gradient_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <thread>

#include "collectives/tree_shape.h"
#include "runtime/nn/model_list.h"
#include "tests/worker/train/thread_gang.h"

namespace lepton::worker {
namespace {

using testing::ThreadCommunicator;
using testing::ThreadGang;

using Shapes = std::vector<std::vector<int64_t>>;
const Shapes kVectors = {{3}, {5}, {2}, {7}};
const Shapes kMatrices = {{24, 20}, {5}, {3, 4, 9}, {40, 16}};
constexpr int64_t kStatistic = 2;  // elements, of the last parameter

// Gradients are a function of the micro-batch. The backward pass finishes the parameters in the
// order that the test says.
class LayeredProgram final : public nn::TrainingProgram {
 public:
  explicit LayeredProgram(const Shapes& shapes = kVectors) {
    int64_t offset = 0;
    const auto add = [&](const std::vector<int64_t>& shape, bool statistic) {
      const int64_t size = Shape(shape).elements();
      parameters_.push_back({"p", shape, offset, size, statistic});
      offset += size;
    };
    for (const auto& shape : shapes) add(shape, false);
    add({kStatistic}, true);
    gradients_.resize(offset);
  }
  const nn::Signature& signature() const override { return signature_; }
  const std::vector<nn::ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override { return gradients_; }
  std::span<float> gradients() override { return gradients_; }
  std::span<float> optimizer_state() override { return {}; }
  void WatchGradients(GradientReady ready) override { ready_ = std::move(ready); }
  Result<nn::LossSum> ForwardBackward(const nn::Batch&, const nn::Targets&, uint64_t,
                                      uint32_t micro_batch) override {
    std::mt19937 random(micro_batch);
    std::uniform_real_distribution<float> uniform(-1e4f, 1e4f);
    std::vector<float> values(gradients_.size());
    for (float& value : values) value = uniform(random) / static_cast<float>(1 + random() % 1000);
    for (const size_t parameter : order) {
      const nn::ParameterView& view = parameters_[parameter];
      std::copy_n(values.begin() + view.offset, view.size, gradients_.begin() + view.offset);
      if (ready_ && !view.statistic) ready_(parameter);
      if (communicator != nullptr) sent_after.push_back(communicator->asynchronous);
    }
    return nn::LossSum{1, 1};
  }
  double ApplyGradients(uint64_t, double) override { return 0; }
  double LearningRate(uint64_t) const override { return 0; }
  Status Forward(const nn::Batch&, std::span<float>) override { return Status::Ok(); }
  Result<nn::LossSum> Evaluate(const nn::Batch&, const nn::Targets&, std::span<float>) override {
    return nn::LossSum{};
  }

  std::vector<size_t> order = {3, 2, 1, 4, 0};
  ThreadCommunicator* communicator = nullptr;
  std::vector<int> sent_after;  // buckets, behind each parameter

 private:
  const nn::Signature signature_ = nn::Signature::Features(1, 1);
  std::vector<nn::ParameterView> parameters_;
  std::vector<float> gradients_;
  GradientReady ready_;
};

struct RankSums {
  std::vector<float> gradients, tail;
  std::vector<int> sent_after;
};

// The sums of the second step over `shards` shards in `pieces` pieces, on each of `size` ranks.
const std::vector<size_t> kOrder = {3, 2, 1, 4, 0};
std::vector<RankSums> Exchange(int size, int shards, int pieces, GradientExchange::Options options,
                               const std::vector<size_t>& order = kOrder,
                               const Shapes& shapes = kVectors) {
  const auto gang = std::make_shared<ThreadGang>(size);
  std::vector<RankSums> sums(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      LayeredProgram program(shapes);
      program.order = order;
      ThreadCommunicator communicator(gang, rank);
      program.communicator = &communicator;
      GradientExchange exchange(program, options);
      const auto [begin, end] = collectives::LeavesOf(rank, size, shards);
      exchange.EnterGroup(end - begin, shards);
      for (int step = 0; step < 2; ++step) {
        program.sent_after.clear();
        communicator.asynchronous = 0;
        exchange.Begin(communicator, end - begin, pieces);
        for (int i = begin * pieces; i < end * pieces; ++i) {
          ASSERT_TRUE(program.ForwardBackward({}, {}, 0, i).ok());
          exchange.After();
        }
        RankSums& mine = sums[rank];
        mine.tail = {static_cast<float>(rank + 1)};
        const Status status = exchange.Reduce(mine.tail);
        ASSERT_TRUE(status.ok()) << status.ToString();
        mine.gradients.assign(program.gradients().begin(), program.gradients().end());
        mine.sent_after = program.sent_after;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return sums;
}

TEST(GradientExchange, BucketsAndRanksDoNotShowInTheBits) {
  for (const int pieces : {1, 3}) {
    const auto expected = Exchange(1, 4, pieces, {.bucket_bytes = 1 << 20})[0].gradients;
    for (const int size : {1, 2, 4}) {
      for (const int64_t bucket_bytes : {1, 20, 36, 1 << 20}) {
        for (const bool overlap : {true, false}) {
          const auto sums = Exchange(size, 4, pieces, {bucket_bytes, overlap});
          for (const RankSums& rank : sums) {
            EXPECT_EQ(rank.gradients, expected)
                << size << " ranks, " << pieces << " pieces, buckets of " << bucket_bytes;
            EXPECT_EQ(rank.tail[0], static_cast<float>(size * (size + 1) / 2));
          }
        }
      }
    }
  }
}

// What ranks take for a step's time is not the same on all of them, nor in all steps; what they
// make of it is.
TEST(GradientExchange, MeasuredBucketsAreTheSameOnAllRanksAndDoNotShowInTheBits) {
  const Shapes shapes = {{90000}, {90000}, {90000}, {90000}};  // 1.4 MB
  constexpr int kRanks = 2, kSteps = 30;
  const auto run = [&](int size, GradientExchange::Options options) {
    const auto gang = std::make_shared<ThreadGang>(size);
    std::vector<std::vector<int>> buckets(size);
    std::vector<std::vector<float>> gradients(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        LayeredProgram program(shapes);
        ThreadCommunicator communicator(gang, rank);
        GradientExchange exchange(program, options);
        const auto [begin, end] = collectives::LeavesOf(rank, size, kRanks);
        exchange.EnterGroup(end - begin, kRanks);
        for (int step = 0; step < kSteps; ++step) {
          exchange.Begin(communicator, end - begin, 1);
          buckets[rank].push_back(exchange.buckets());
          for (int i = begin; i < end; ++i) {
            ASSERT_TRUE(program.ForwardBackward({}, {}, 0, i).ok());
            exchange.After();
          }
          std::vector<float> tail = {1.0f};
          ASSERT_TRUE(exchange.Reduce(tail).ok());
          EXPECT_EQ(tail[0], static_cast<float>(size));
        }
        gradients[rank].assign(program.gradients().begin(), program.gradients().end());
      });
    }
    for (std::thread& thread : threads) thread.join();
    return std::pair(buckets, gradients);
  };
  for (const auto compression :
       {GradientExchange::Compression::kNone, GradientExchange::Compression::kBFloat16,
        GradientExchange::Compression::kLowRank}) {
    GradientExchange::Options options;
    options.compression = compression;
    const auto [buckets, gradients] = run(kRanks, options);
    options.bucket_bytes = 1 << 20;
    const auto [fixed, expected] = run(kRanks, options);
    EXPECT_EQ(buckets[0], buckets[1]);
    const std::set<int> sizes(buckets[0].begin(), buckets[0].end());
    EXPECT_GT(sizes.size(), 1u) << "nothing was tried";
    EXPECT_EQ(std::set<int>(fixed[0].begin(), fixed[0].end()).size(), 1u);
    EXPECT_EQ(gradients, expected);
  }
}

using Compression = GradientExchange::Compression;

GradientExchange::Options Compressed(Compression compression, int rank) {
  GradientExchange::Options options;
  options.compression = compression;
  options.rank = rank;
  return options;
}

TEST(GradientExchange, CompressionGivesTheSameBitsForAnyNumberOfRanks) {
  for (const Compression compression : {Compression::kBFloat16, Compression::kLowRank}) {
    for (const int pieces : {1, 2}) {
      GradientExchange::Options options = Compressed(compression, 2);
      const auto expected = Exchange(1, 4, pieces, options, kOrder, kMatrices)[0];
      for (const int size : {1, 2, 4}) {
        for (const int64_t bucket_bytes : {1, 400, 1 << 20}) {
          options.bucket_bytes = bucket_bytes;
          for (const RankSums& rank : Exchange(size, 4, pieces, options, kOrder, kMatrices)) {
            EXPECT_EQ(rank.gradients, expected.gradients)
                << size << " ranks, " << pieces << " pieces, buckets of " << bucket_bytes;
            EXPECT_EQ(rank.tail[0], static_cast<float>(size * (size + 1) / 2));
          }
        }
      }
    }
  }
}

TEST(GradientExchange, HalvesAreTheSumsRoundedAndStatisticsStayWhole) {
  const auto whole = Exchange(2, 4, 1, {})[0].gradients;
  const auto halves = Exchange(2, 4, 1, Compressed(Compression::kBFloat16, 1))[0].gradients;
  float greatest = 0;
  for (const float value : whole) greatest = std::max(greatest, std::abs(value));
  for (size_t i = 0; i < whole.size(); ++i) {
    if (i + kStatistic >= whole.size()) {
      EXPECT_EQ(halves[i], whole[i]);
      continue;
    }
    EXPECT_EQ(halves[i], BF16::ToFloat(BF16::FromFloat(halves[i])));
    // Four leaves and three sums, each rounded by half a unit of 2^-7 at most.
    EXPECT_NEAR(halves[i], whole[i], greatest * 4 / 128);
  }
}

// A rank that was in a group before and one that was not: EnterGroup makes both as new.
TEST(GradientExchange, FactorsBeginAnewInEveryGroup) {
  const GradientExchange::Options options = Compressed(Compression::kLowRank, 2);
  const auto expected = Exchange(4, 4, 1, options, kOrder, kMatrices)[0].gradients;
  const auto alone = std::make_shared<ThreadGang>(1), gang = std::make_shared<ThreadGang>(2);
  const auto steps = [](LayeredProgram& program, GradientExchange& exchange,
                        std::shared_ptr<ThreadGang> group, int rank, int first, int shards) {
    ThreadCommunicator communicator(std::move(group), rank);
    exchange.EnterGroup(shards, 4);
    for (int step = 0; step < 2; ++step) {
      exchange.Begin(communicator, shards, 1);
      for (int shard = first; shard < first + shards; ++shard) {
        ASSERT_TRUE(program.ForwardBackward({}, {}, 0, shard).ok());
        exchange.After();
      }
      ASSERT_TRUE(exchange.Reduce({}).ok());
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      LayeredProgram program(kMatrices);
      GradientExchange exchange(program, options);
      if (rank == 0) steps(program, exchange, alone, 0, 0, 4);
      steps(program, exchange, gang, rank, 2 * rank, 2);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), program.gradients().begin()));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GradientExchange, CompressedPayloadsAreSmaller) {
  LayeredProgram program(kMatrices);
  const int64_t elements = static_cast<int64_t>(program.gradients().size());
  const GradientExchange whole(program, {});
  EXPECT_EQ(whole.payload_bytes(), 4 * elements);
  const GradientExchange halves(program, Compressed(Compression::kBFloat16, 1));
  EXPECT_EQ(halves.payload_bytes(), 2 * (elements - kStatistic) + 4 * kStatistic);
  const GradientExchange factors(program, Compressed(Compression::kLowRank, 2));
  // Of [3, 4, 9] the factors would be more than half.
  const int64_t sent = 2 * (24 + 20 + 40 + 16) + 3 * 4 * 9 + 5 + kStatistic;
  EXPECT_EQ(factors.payload_bytes(), 4 * sent);
}

TEST(GradientExchange, ARankWithoutAShardAddsNothing) {
  for (const Compression compression : {Compression::kBFloat16, Compression::kLowRank}) {
    const GradientExchange::Options options = Compressed(compression, 1);
    const auto one = Exchange(1, 1, 1, options, kOrder, kMatrices)[0].gradients;
    for (const RankSums& rank : Exchange(2, 1, 1, options, kOrder, kMatrices)) {
      EXPECT_EQ(rank.gradients, one);
    }
  }
  const auto expected = Exchange(1, 2, 1, {})[0].gradients;
  for (const RankSums& rank : Exchange(4, 2, 1, {.bucket_bytes = 1})) {
    EXPECT_EQ(rank.gradients, expected);
  }
}

TEST(GradientExchange, ABucketGoesOutAsSoonAsItIsFinalAndNotBeforeTheOnesBeforeIt) {
  // Buckets {3}, {2, 1}, {0 and the statistic}: the last one goes when the backward pass is over.
  EXPECT_EQ(Exchange(2, 2, 1, {.bucket_bytes = 16})[0].sent_after,
            (std::vector<int>{1, 1, 2, 2, 2}));
  EXPECT_EQ(Exchange(2, 2, 1, {.bucket_bytes = 16}, {2, 1, 0, 3, 4})[0].sent_after,
            (std::vector<int>{0, 0, 0, 2, 2}));
  // Only the last micro-batch's gradients may go.
  EXPECT_EQ(Exchange(2, 2, 2, {.bucket_bytes = 16})[0].sent_after,
            (std::vector<int>{0, 0, 0, 0, 0, 1, 1, 2, 2, 2}));
  EXPECT_EQ(Exchange(2, 2, 1, {.bucket_bytes = 16, .overlap = false})[0].sent_after,
            (std::vector<int>{0, 0, 0, 0, 0}));
}

// What the exchange trusts: a gradient that was named is final, and all of them are named in time.
TEST(GradientExchange, ProgramsNameEveryGradientOnceWhenItIsFinal) {
  for (const std::string precision : {"f32", "bf16"}) {
    nn::TrainingProgram::Options options;
    options.model.arch = "transformer";
    options.model.transformer.style = "gpt2";
    options.model.transformer.layers = 3;
    options.model.transformer.heads = 2;
    options.model.transformer.width = 32;
    options.model.activation = "gelu";
    options.precision = precision;
    const nn::DataShape data = {.kind = nn::DataShape::Kind::kTokens,
                                .vocabulary = 17,
                                .context = 16,
                                .outputs = 17,
                                .per_token = true};
    options.model = nn::ResolveModel(options.model, data).value();
    const nn::Signature signature = nn::MakeSignature(options.model, data).value();
    const auto program = nn::TrainingProgram::Build(signature, options).value();
    std::vector<int32_t> tokens(4 * 16), classes(4 * 16);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 5 % 17);
    for (size_t i = 0; i < tokens.size(); ++i) classes[i] = (tokens[i] * 3 + 1) % 17;
    nn::Batch batch;
    batch.inputs.push_back({tokens.data(), {DType::kI32, Shape({4, 16})}});
    std::vector<size_t> order;
    std::vector<std::vector<float>> named(program->parameters().size());
    program->WatchGradients([&](size_t i) {
      order.push_back(i);
      const nn::ParameterView& view = program->parameters()[i];
      const auto part = program->gradients().subspan(view.offset, view.size);
      EXPECT_TRUE(named[i].empty()) << view.name << " twice";
      named[i].assign(part.begin(), part.end());
      std::fill(part.begin(), part.end(), 7.0f);  // it is ours
    });
    ASSERT_TRUE(program->ForwardBackward(batch, {.classes = classes}, 0, 0).ok());
    program->WatchGradients(nullptr);
    const auto watched = program->gradients();
    EXPECT_EQ(std::count(watched.begin(), watched.end(), 7.0f),
              static_cast<int64_t>(watched.size()));
    ASSERT_TRUE(program->ForwardBackward(batch, {.classes = classes}, 0, 0).ok());
    for (size_t i = 0; i < named.size(); ++i) {
      const nn::ParameterView& view = program->parameters()[i];
      const auto part = program->gradients().subspan(view.offset, view.size);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), named[i].begin(), named[i].end()))
          << view.name << " was not final";
    }
    // The last layer's first: nine tenths of the way, most have been named in falling order.
    int falling = 0;
    for (size_t i = 1; i < order.size(); ++i) falling += order[i] < order[i - 1];
    EXPECT_GT(falling, static_cast<int>(order.size()) * 6 / 10) << precision;
  }
}

}  // namespace
}  // namespace lepton::worker
