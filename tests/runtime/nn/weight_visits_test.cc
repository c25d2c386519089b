// A program whose weights are with somebody else has the bits of one that keeps them, asks in the
// same order whatever the shapes, and never has more than a few buckets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <optional>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr int64_t kBucketBytes = 4096;

class Shelf final : public WeightSource {
 public:
  Status Bring(int64_t begin, std::span<float> to) override {
    if (!error.ok()) return error;
    const auto from = weights.begin() + begin;
    std::copy(from, from + static_cast<ptrdiff_t>(to.size()), to.begin());
    brought.push_back(begin);
    if (expected == begin) ++foreseen;
    expected = -1;
    return Status::Ok();
  }
  void Expect(int64_t begin, int64_t) override { expected = begin; }
  Status BeginForward() override {
    ++forwards;
    return error;
  }
  Result<bool> OthersForward() override { return others-- > 0; }

  std::vector<float> weights;
  std::vector<int64_t> brought;
  int64_t expected = -1;
  size_t foreseen = 0;  // of those brought
  int forwards = 0, others = 0;
  Status error;
};

struct VisitCase {
  const char* name;
  const char* style;  // of a transformer; null: a ResNet
  const char* precision;
};

class WeightVisit : public testing::TestWithParam<VisitCase> {
 protected:
  WeightVisit() {
    if (GetParam().style != nullptr) {
      auto built = Resolve(TinyTransformer(GetParam().style), TextShape(128, 64, 0, true));
      options.model = built.model;
      signature = built.signature;
    } else {
      const DataShape pictures{
          .kind = DataShape::Kind::kImages, .channels = 1, .height = 8, .width = 8, .outputs = 10};
      spec::ModelSpec model = spec::DefaultModel("resnet18");
      model.resnet.stem_width = 8;
      model.resnet.widths = {8, 16};
      model.resnet.depths = {1, 1};
      options.model = ResolveModel(model, pictures).value();
      signature = MakeSignature(model, pictures).value();
    }
    options.precision = GetParam().precision;
    options.optimizer = {.name = "sgd", .lr = 0.1, .momentum = 0};
    options.seed = 3;
    kept = MustBuild(signature, options);
    options.keeps_packs = options.keeps_weights = false;
    visited = MustBuild(signature, options);
    shelf.weights.assign(visited->weights().begin(), visited->weights().end());
    visited->VisitWeights(&shelf, kBucketBytes);
  }

  // `rows` texts or pictures; shorter texts where they are few.
  struct Input {
    std::vector<float> pixels;
    std::vector<int32_t> classes;
    std::optional<TextBatch> texts;
    Batch batch;
    Targets targets() const { return {.classes = classes}; }
  };
  std::unique_ptr<Input> Make(int64_t rows) const {
    auto input = std::make_unique<Input>();
    if (GetParam().style != nullptr) {
      std::vector<std::vector<int32_t>> texts(static_cast<size_t>(rows),
                                              std::vector<int32_t>(rows == 1 ? 5 : 40));
      for (auto& text : texts) std::iota(text.begin(), text.end(), 7);
      input->texts.emplace(signature, texts);
      input->classes = input->texts->next_tokens();
      input->batch = input->texts->batch();
      return input;
    }
    input->pixels.resize(static_cast<size_t>(rows * 64));
    for (size_t i = 0; i < input->pixels.size(); ++i) {
      input->pixels[i] = static_cast<float>(i % 17) / 8 - 1;
    }
    for (int64_t i = 0; i < rows; ++i) input->classes.push_back(static_cast<int32_t>(i % 10));
    input->batch = {{{input->pixels.data(), {DType::kF32, {rows, 1, 8, 8}}}}};
    return input;
  }
  std::vector<int64_t> Brought(const std::function<Status()>& pass) {
    shelf.brought.clear();
    const Status status = pass();
    EXPECT_TRUE(status.ok()) << status.ToString();
    return shelf.brought;
  }

  TrainingProgram::Options options;  // of `visited`
  Signature signature;
  std::unique_ptr<TrainingProgram> kept, visited;
  Shelf shelf;
};

INSTANTIATE_TEST_SUITE_P(Models, WeightVisit,
                         testing::Values(VisitCase{"Gpt2", "gpt2", "f32"},
                                         VisitCase{"Gpt2Bf16", "gpt2", "bf16"},
                                         VisitCase{"LlamaBf16", "llama", "bf16"},
                                         VisitCase{"ResNet", nullptr, "f32"},
                                         VisitCase{"ResNetBf16", nullptr, "bf16"}),
                         [](const auto& info) { return info.param.name; });

TEST_P(WeightVisit, GivesTheSameBits) {
  for (const int64_t rows : {3, 1, 3}) {
    const auto input = Make(rows);
    const LossSum loss = kept->ForwardBackward(input->batch, input->targets(), 4, 1).value();
    EXPECT_EQ(visited->ForwardBackward(input->batch, input->targets(), 4, 1).value().sum, loss.sum);
    EXPECT_TRUE(SameBits(visited->gradients(), kept->gradients())) << rows;
    std::vector<float> logits(
        static_cast<size_t>(Predictions(signature, input->batch) * signature.outputs));
    std::vector<float> same(logits.size());
    ASSERT_TRUE(kept->Forward(input->batch, logits).ok());
    ASSERT_TRUE(visited->Forward(input->batch, same).ok());
    EXPECT_TRUE(SameBits(same, logits)) << rows;
    // Whoever has the weights changes them, and nobody tells the program.
    for (size_t i = 0; i < shelf.weights.size(); ++i) {
      const bool statistic = static_cast<int64_t>(i) >= visited->weights_begin();
      if (!statistic) kept->weights()[i] = shelf.weights[i] *= 0.75f;
    }
  }
}

TEST_P(WeightVisit, AsksInTheSameOrderWhateverTheShapes) {
  const auto many = Make(3), one = Make(1);
  // The first pass of a rank may be one without rows.
  const auto without = Brought([&] { return visited->PassThrough(); });
  EXPECT_GT(without.size(), 4u);
  for (const auto* input : {many.get(), one.get()}) {
    EXPECT_EQ(Brought([&] {
                return visited->ForwardBackward(input->batch, input->targets(), 0, 0).status();
              }),
              without);
  }
  EXPECT_EQ(Brought([&] { return visited->PassThrough(); }), without);

  shelf.others = 1;
  const auto forward = Brought([&] { return visited->AwaitForwards(); });
  EXPECT_LT(forward.size(), without.size());
  EXPECT_EQ(shelf.forwards, 0);
  for (const auto* input : {many.get(), one.get()}) {
    std::vector<float> logits(
        static_cast<size_t>(Predictions(signature, input->batch) * signature.outputs));
    // The rows may run in several blocks.
    shelf.forwards = 0;
    const auto brought = Brought([&] { return visited->Forward(input->batch, logits); });
    EXPECT_EQ(brought.size(), forward.size() * static_cast<size_t>(shelf.forwards));
    EXPECT_TRUE(std::equal(forward.begin(), forward.end(), brought.begin()));
  }
}

TEST_P(WeightVisit, ForeseesWhatComesNext) {
  const auto input = Make(3);
  std::vector<float> logits(
      static_cast<size_t>(Predictions(signature, input->batch) * signature.outputs));
  ASSERT_TRUE(visited->ForwardBackward(input->batch, input->targets(), 0, 0).ok());
  ASSERT_TRUE(visited->PassThrough().ok());
  ASSERT_TRUE(visited->Forward(input->batch, logits).ok());
  EXPECT_EQ(shelf.foreseen, shelf.brought.size());
  EXPECT_EQ(shelf.expected, -1) << "nobody asked for it";
}

TEST_P(WeightVisit, NamesGradientsInAPassWithoutRowsAsInAnyOther) {
  const auto input = Make(3);
  std::vector<size_t> named, without;
  std::vector<size_t>* to = &named;
  visited->WatchGradients([&](size_t parameter) { to->push_back(parameter); });
  ASSERT_TRUE(visited->ForwardBackward(input->batch, input->targets(), 0, 0).ok());
  to = &without;
  ASSERT_TRUE(visited->PassThrough().ok());
  EXPECT_EQ(without, named);
  EXPECT_FALSE(named.empty());
}

TEST_P(WeightVisit, HasAFewBucketsAtATime) {
  const auto input = Make(3);
  for (TrainingProgram* const program : {visited.get(), kept.get()}) {
    ASSERT_TRUE(program->ForwardBackward(input->batch, input->targets(), 0, 0).ok());
  }
  const size_t all = shelf.weights.size() * sizeof(float);
  size_t largest = 0;
  for (const ParameterView& view : visited->parameters()) {
    largest = std::max(largest, static_cast<size_t>(view.size) * sizeof(float));
  }
  // Two of the largest that a parameter makes, what one more may be, and a buffer that waits.
  EXPECT_LE(visited->visiting_bytes(), 4 * (largest + kBucketBytes));
  EXPECT_LT(visited->visiting_bytes(), all);
  EXPECT_LT(visited->pack_bytes(), kept->pack_bytes());
  EXPECT_EQ(visited->weights().size_bytes(),
            all - static_cast<size_t>(visited->weights_begin()) * sizeof(float));
}

// What nobody asked for as a whole is drawn by the tensor, to the same numbers.
TEST_P(WeightVisit, FirstWeightsCanBeReadInParts) {
  const auto lazy = MustBuild(signature, options);
  const std::span<const float> all = kept->weights();
  for (size_t begin = 0; begin < all.size(); begin += 777) {
    std::vector<float> part(std::min<size_t>(1000, all.size() - begin));
    lazy->ReadWeights(static_cast<int64_t>(begin), part);
    EXPECT_TRUE(SameBits(part, all.subspan(begin, part.size()))) << begin;
  }
  // Without ever having had all of them.
  lazy->VisitWeights(&shelf, kBucketBytes);
  EXPECT_TRUE(SameBits(lazy->weights(), all.subspan(static_cast<size_t>(lazy->weights_begin()))));
  const auto input = Make(3);
  ASSERT_TRUE(kept->ForwardBackward(input->batch, input->targets(), 0, 0).ok());
  ASSERT_TRUE(lazy->ForwardBackward(input->batch, input->targets(), 0, 0).ok());
  EXPECT_TRUE(SameBits(lazy->gradients(), kept->gradients()));
}

TEST_P(WeightVisit, CollectsThemInNameOrder) {
  std::vector<std::string> names;
  const auto take = [&](const ParameterView& view, std::span<const float> values) {
    names.push_back(view.name);
    const auto from = shelf.weights.begin() + view.offset;
    EXPECT_TRUE(std::equal(values.begin(), values.end(), from)) << view.name;
    return Status::Ok();
  };
  ASSERT_TRUE(visited->CollectWeights(take).ok());
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(names.size(), visited->parameters().size());
  const std::vector<std::string> visiting = std::exchange(names, {});
  ASSERT_TRUE(kept->CollectWeights(take).ok());
  EXPECT_EQ(names, visiting);
}

TEST_P(WeightVisit, EndsAPassWithTheSourcesError) {
  const auto input = Make(1);
  shelf.error = Aborted("a peer is gone");
  const auto run = [&] {
    return visited->ForwardBackward(input->batch, input->targets(), 0, 0).status().code();
  };
  std::vector<float> logits(
      static_cast<size_t>(Predictions(signature, input->batch) * signature.outputs));
  EXPECT_EQ(run(), StatusCode::kAborted);
  EXPECT_EQ(visited->Forward(input->batch, logits).code(), StatusCode::kAborted);
  EXPECT_EQ(visited->PassThrough().code(), StatusCode::kAborted);
  shelf.error = Status::Ok();
  EXPECT_EQ(run(), StatusCode::kOk);
  visited->VisitWeights(nullptr, kBucketBytes);
  EXPECT_EQ(run(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(kept->PassThrough().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace lepton::nn
