// A transformer divided over ranks computes what the undivided one does, and each rank holds the
// slices of the same weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <ostream>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/tensor_ranks.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

constexpr int kVocabulary = 128;

struct Division {
  const char* style;
  int ranks;
  const char* precision = "f32";
  bool recompute = false;
};
std::ostream& operator<<(std::ostream& out, const Division& c) {
  return out << c.style << " over " << c.ranks << ' ' << c.precision
             << (c.recompute ? " again" : "");
}
bool IsOfEncoder(const Division& c) {
  return std::string(c.style).ends_with("bert");
}

// What training by one program, or by all ranks of a divided one, comes to.
struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> first_weights, first_gradient, weights;  // of the undivided model
  double measured = 0;
};

class TensorParallel : public testing::TestWithParam<Division> {
 protected:
  TensorParallel() : data_(Resolve(Model(), Data())), batch_(data_.signature, Texts()) {
    targets_ = IsOfEncoder(GetParam()) ? std::vector<int32_t>{1, 0, 1, 0} : batch_.next_tokens();
  }
  static spec::ModelSpec Model() {
    spec::ModelSpec model = TinyTransformer(GetParam().style);
    model.dropout = 0.1;
    return model;
  }
  static DataShape Data() {
    return IsOfEncoder(GetParam()) ? TextShape(kVocabulary, 32, 2, false)
                                   : TextShape(kVocabulary, 32, 0, true);
  }
  static std::vector<std::vector<int32_t>> Texts() {
    return {BytesOf("the quick brown fox"), BytesOf("jumps over"), BytesOf("the lazy dog"),
            BytesOf("and runs away")};
  }
  TrainingProgram::Options OptionsOf(TensorPlace place) const {
    TrainingProgram::Options options;
    options.model = data_.model;
    options.optimizer = {.name = "adamw", .lr = 3e-3, .weight_decay = 0.01, .decay = "matrices"};
    options.total_steps = kSteps;
    options.clip_norm = kClip;  // below the gradient's norm in every step
    options.precision = GetParam().precision;
    options.recompute_activations = GetParam().recompute;
    options.seed = 3;
    options.tensor = place;
    return options;
  }

  // In the order of the undivided model's flat buffer.
  static std::vector<float> Whole(graph::TensorGroup* group, const TrainingProgram& program,
                                  std::span<const float> values) {
    std::vector<float> whole;
    for (const ParameterView& view : program.parameters()) {
      const std::vector<float> tensor =
          GatherWhole(group, view.shape, view.slice, values.subspan(view.offset, view.size));
      whole.insert(whole.end(), tensor.begin(), tensor.end());
    }
    return whole;
  }

  Trained Train(TensorPlace place = {}, graph::TensorGroup* group = nullptr) {
    Trained trained;
    const auto program = MustBuild(data_.signature, OptionsOf(place));
    program->JoinTensorGroup(group);
    trained.first_weights = Whole(group, *program, program->weights());
    for (int step = 0; step < kSteps; ++step) {
      const auto loss = program->ForwardBackward(batch_.batch(), {.classes = targets_}, step, 0);
      EXPECT_TRUE(loss.ok()) << loss.status().ToString();
      if (!loss.ok()) return trained;
      if (step == 0) trained.first_gradient = Whole(group, *program, program->gradients());
      trained.losses.push_back(loss->sum / loss->count);
      trained.norms.push_back(program->ApplyGradients(step, 1 / loss->count));
    }
    trained.weights = Whole(group, *program, program->weights());
    const int64_t predictions = IsOfEncoder(GetParam()) ? 4 : batch_.tokens();
    std::vector<float> logits(predictions * data_.signature.outputs);
    const auto measured = program->Evaluate(batch_.batch(), {.classes = targets_}, logits);
    EXPECT_TRUE(measured.ok()) << measured.status().ToString();
    if (measured.ok()) trained.measured = measured->sum / measured->count;
    return trained;
  }

  std::vector<Trained> TrainDivided() {
    TensorRanks ranks(GetParam().ranks);
    std::vector<Trained> trained(GetParam().ranks);
    ranks.Run([&](int rank, graph::TensorGroup& group) {
      trained[rank] = Train({rank, ranks.size()}, &group);
    });
    return trained;
  }

  static constexpr int kSteps = 20;
  static constexpr double kClip = 0.1;
  const BuiltModel data_;
  const TextBatch batch_;
  std::vector<int32_t> targets_;
};

// Of all that is left of a vector when another one is taken from it, the norm; by that one's.
double RelativeError(const std::vector<float>& values, const std::vector<float>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (values[i] - expected[i]) * (values[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

TEST_P(TensorParallel, TrainsAsTheUndividedModel) {
  const Trained expected = Train();
  const std::vector<Trained> all = TrainDivided();
  const bool exact = std::string(GetParam().precision) == "f32";
  const double tolerance = exact ? 1e-4 : 3e-2;
  for (const Trained& trained : all) {
    EXPECT_TRUE(SameBits(trained.first_weights, expected.first_weights));
    ASSERT_EQ(trained.first_gradient.size(), expected.first_gradient.size());
    EXPECT_LT(RelativeError(trained.first_gradient, expected.first_gradient), exact ? 1e-5 : 3e-2);
    ASSERT_EQ(trained.losses.size(), expected.losses.size());
    for (int step = 0; step < kSteps; ++step) {
      EXPECT_NEAR(trained.losses[step], expected.losses[step], tolerance * expected.losses[step])
          << "step " << step;
      EXPECT_NEAR(trained.norms[step], expected.norms[step], 10 * tolerance * expected.norms[step])
          << "step " << step;
      EXPECT_GT(trained.norms[step], kClip) << "nothing to clip in step " << step;
    }
    EXPECT_NEAR(trained.measured, expected.measured, tolerance * expected.measured);
  }
}

TEST_P(TensorParallel, RanksAgreeToTheBitAndRepeatThemselves) {
  const std::vector<Trained> all = TrainDivided();
  const std::vector<Trained> again = TrainDivided();
  for (const std::vector<Trained>* run : {&all, &again}) {
    for (const Trained& trained : *run) {
      EXPECT_TRUE(SameBits(trained.losses, all[0].losses));
      EXPECT_TRUE(SameBits(trained.norms, all[0].norms));
      EXPECT_TRUE(SameBits(trained.first_gradient, all[0].first_gradient));
      EXPECT_TRUE(SameBits(trained.weights, all[0].weights));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallel,
                         testing::Values(Division{"gpt2", 2}, Division{"gpt2", 4},
                                         Division{"llama", 2}, Division{"qwen3", 2},
                                         Division{"bert", 4}, Division{"distilbert", 2},
                                         Division{"gpt2", 2, "f32", true},
                                         Division{"qwen3", 2, "bf16"}));

TEST(TensorSlicesTest, ARankHoldsItsPartOfEachSection) {
  // [2, 8], sections of 4, 2 and 2 columns: rank 1 of 2 has columns 2, 3, 5 and 7.
  const TensorSlice slice{1, {4, 2, 2}, {1, 2}};
  std::vector<float> whole(16), part(8);
  for (int i = 0; i < 16; ++i) whole[i] = static_cast<float>(i);
  TakePart({2, 4}, slice, whole, part);
  EXPECT_THAT(part, testing::ElementsAre(2, 3, 5, 7, 10, 11, 13, 15));
  EXPECT_THAT(WholeShape({2, 4}, slice), testing::ElementsAre(2, 8));
}

TEST(TensorSlicesTest, PartsAreFoundInPiecesOfTheWhole) {
  const TensorSlice slice{0, {6}, {2, 3}};
  std::vector<float> whole(18), part(6), pieces(6);
  for (int i = 0; i < 18; ++i) whole[i] = static_cast<float>(i);
  TakePart({2, 3}, slice, whole, part);
  EXPECT_THAT(part, testing::ElementsAre(12, 13, 14, 15, 16, 17));
  for (const auto& [begin, end] : {std::pair{0, 5}, {5, 13}, {13, 18}}) {
    TakePartOf({2, 3}, slice, begin, std::span(whole).subspan(begin, end - begin), pieces);
  }
  EXPECT_EQ(pieces, part);
}

class FailingGroup final : public graph::TensorGroup {
 public:
  void AllReduce(const float*, float*, size_t) override { ++calls; }
  void AllGather(const void*, void*, size_t) override { ++calls; }
  Status status() const override { return calls < 2 ? Status::Ok() : Aborted("a peer died"); }
  int calls = 0;
};

TEST(TensorParallelFailure, ADeadPeerEndsPassesWithItsCause) {
  const auto [model, signature] = Resolve(TinyTransformer("gpt2"), TextShape(128, 16, 0, true));
  TrainingProgram::Options options;
  options.model = model;
  options.tensor = {1, 2};
  const auto program = MustBuild(signature, options);
  const TextBatch batch(signature, {BytesOf("abcdefgh")});
  const std::vector<int32_t> targets = batch.next_tokens();
  std::vector<float> logits(8 * 128);
  EXPECT_EQ(program->ForwardBackward(batch.batch(), {.classes = targets}, 0, 0).status().code(),
            StatusCode::kFailedPrecondition)
      << "nobody to talk to";
  FailingGroup group;
  program->JoinTensorGroup(&group);
  EXPECT_EQ(program->ForwardBackward(batch.batch(), {.classes = targets}, 0, 0).status().code(),
            StatusCode::kAborted);
  EXPECT_TRUE(std::isnan(program->ApplyGradients(0, 1)));
  EXPECT_EQ(program->Forward(batch.batch(), logits).code(), StatusCode::kAborted);
  EXPECT_EQ(program->CollectWeights([](auto&, auto) { return Status::Ok(); }).code(),
            StatusCode::kAborted);
}

TEST(TensorParallelFailure, NamesWhatDoesNotDivide) {
  const auto message = [](int ranks, const std::function<void(spec::TransformerSpec&)>& change) {
    spec::ModelSpec tiny = TinyTransformer("llama");
    change(tiny.transformer);
    const auto [model, signature] = Resolve(tiny, TextShape(128, 16, 0, true));
    TrainingProgram::Options options;
    options.model = model;
    options.tensor = {0, ranks};
    return TrainingProgram::Build(signature, options).status().message();
  };
  EXPECT_THAT(message(3, [](auto&) {}),
              testing::HasSubstr("parallel.tensor: 3 must divide model.heads, 4"));
  EXPECT_THAT(message(4, [](auto&) {}),
              testing::HasSubstr("parallel.tensor: 4 must divide model.kv_heads, 2"));
  EXPECT_THAT(message(2, [](auto& t) { t.mlp_width = 33; }),
              testing::HasSubstr("parallel.tensor: 2 must divide model.mlp_width, 33"));
}

}  // namespace
}  // namespace lepton::nn
