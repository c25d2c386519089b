// A transformer whose layers are divided over ranks, as tasks: it trains as the undivided one does,
// and its checkpoints and models are those of the undivided one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/nn/model_list.h"
#include "tests/worker/train/fake_task.h"
#include "worker/train/model_files.h"
#include "worker/train/tensor_gang.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

struct Layout {
  int tensor, ranks;
};

class TensorTaskTest : public testing::TaskTest {
 protected:
  void SetUp() override {
    TaskTest::SetUp();
    std::string text;
    for (int i = 0; i < 40; ++i) text += "the quick brown fox jumps over the lazy dog. ";
    const auto imported = storage::ImportFile(*objects_, storage::ByteSource::FromMemory(text),
                                              storage::ImportOptions{.format = "text"});
    ASSERT_TRUE(imported.ok()) << imported.status().ToString();
    start_.set_kind("train");
    start_.set_dataset_manifest(imported->digest);
    start_.set_tokenizer("bytes");
  }
  static spec::JobSpec SpecOf(const Layout& layout) {
    return Spec(fmt::format(R"(
kind: train
dataset: {{name: fox, tokenizer: bytes, context: 16}}
model: {{arch: transformer, style: llama, layers: 2, heads: 4, kv_heads: 4, width: 32}}
loss: next_token
gradients: {{bucket_bytes: 16384}}
optimizer: {{name: adamw, lr: 0.003, decay: matrices}}
clip_norm: 0.5
batch_size: 8
steps: 20
elastic: {{logical_shards: 5}}
resources: {{min_workers: {1}, max_workers: {1}}}
checkpoint: {{every_steps: 5}}
parallel: {{tensor: {0}}}
)",
                            layout.tensor, layout.ranks));
  }
  std::vector<testing::Rank> Train(const Layout& layout, uint64_t stop_at = 0,
                                   const storage::Digest& resume = "") {
    wire::StartTask start = start_;
    if (!resume.empty()) start.set_resume_checkpoint(resume);
    return RunGang(RunTrain, SpecOf(layout), start, layout.ranks, [&](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
      if (task.start().rank() == 0) task.stop_at_checkpoint = stop_at;
    });
  }
  storage::ModelManifest Model(const testing::Rank& rank) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    return ModelOf(rank);
  }
  // The norm of the difference of two stored models, by the first one's.
  double Difference(const testing::Rank& one, const testing::Rank& other) {
    const auto a = LoadModel(*objects_, one.task->result.model_manifest());
    const auto b = LoadModel(*objects_, other.task->result.model_manifest());
    EXPECT_TRUE(a.ok() && b.ok());
    if (!a.ok() || !b.ok()) return 1;
    double difference = 0, norm = 0;
    for (const auto& [name, tensor] : a->tensors) {
      const nn::SourceTensor& same = b->tensors.at(name);
      EXPECT_EQ(tensor.shape, same.shape) << name;
      const auto* const x = static_cast<const float*>(tensor.data);
      const auto* const y = static_cast<const float*>(same.data);
      for (int64_t i = 0; i < tensor.elements(); ++i) {
        difference += (x[i] - y[i]) * (x[i] - y[i]);
        norm += x[i] * x[i];
      }
    }
    EXPECT_EQ(a->tensors.size(), b->tensors.size());
    return std::sqrt(difference / norm);
  }

  wire::StartTask start_;
};

TEST_F(TensorTaskTest, TrainsAsOneRankDoesAndTheNumberOfReplicasDoesNotShow) {
  const auto alone = Train({1, 1});
  const auto two = Train({2, 2});
  const auto four = Train({2, 4});
  const auto again = Train({2, 4});
  const auto eight = Train({2, 8});  // shards over 4 replicas as 3 and 1, where ranks are 2 and 2
  const auto quarters = Train({4, 4});
  EXPECT_EQ(Model(two[0]).weights_sha256, Model(four[0]).weights_sha256);
  EXPECT_EQ(Model(again[0]).weights_sha256, Model(four[0]).weights_sha256);
  EXPECT_EQ(Model(eight[0]).weights_sha256, Model(four[0]).weights_sha256);
  EXPECT_NE(Model(two[0]).weights_sha256, Model(alone[0]).weights_sha256)
      << "sums of shares are rounded otherwise: nothing was divided";
  for (const auto* gang : {&two, &four, &eight, &quarters}) {
    EXPECT_EQ(Model((*gang)[0]).parameters, Model(alone[0]).parameters);
    EXPECT_LT(Difference(alone[0], (*gang)[0]), 2e-3);
    for (const testing::Rank& rank : *gang) {
      ASSERT_TRUE(rank.status.ok()) << rank.status.ToString();
      for (const char* figure : {"train/loss", "validation/loss", "test/loss"}) {
        EXPECT_NEAR(rank.metric(figure), alone[0].metric(figure), 1e-4 * alone[0].metric(figure))
            << figure;
        EXPECT_EQ(rank.metric(figure), (*gang)[0].metric(figure)) << figure;
      }
    }
  }
  const double whole = 4.0 * static_cast<double>(Model(alone[0]).parameters);
  EXPECT_LT(two[0].metric("rank0/weights_bytes"), 0.75 * whole);
  EXPECT_LT(quarters[0].metric("rank0/optimizer_bytes"), 0.7 * 2 * whole);
}

TEST_F(TensorTaskTest, ACheckpointIsThatOfTheUndividedModel) {
  const auto undisturbed = Train({2, 2});
  const std::string digest = Model(undisturbed[0]).weights_sha256;
  struct Case {
    Layout first, then;
    bool same_bits;
  };
  for (const Case& one :
       {Case{{2, 2}, {2, 2}, true}, Case{{2, 2}, {2, 4}, true}, Case{{2, 4}, {2, 2}, true},
        Case{{1, 1}, {2, 2}, false}, Case{{2, 2}, {1, 2}, false}, Case{{2, 4}, {4, 4}, false}}) {
    const auto stopped = Train(one.first, 10);
    for (const testing::Rank& rank : stopped) {
      EXPECT_EQ(rank.status.code(), StatusCode::kCancelled) << rank.status.ToString();
    }
    ASSERT_FALSE(stopped[0].task->checkpoints.empty());
    const auto resumed = Train(one.then, 0, stopped[0].task->checkpoints.back().manifest());
    const std::string where = fmt::format("{} over {}, then {} over {}", one.first.tensor,
                                          one.first.ranks, one.then.tensor, one.then.ranks);
    if (one.same_bits) {
      EXPECT_EQ(Model(resumed[0]).weights_sha256, digest) << where;
    }
    EXPECT_LT(Difference(undisturbed[0], resumed[0]), 2e-3) << where;
    EXPECT_EQ(resumed[0].task->result.steps(), 20u);
  }
}

TEST_F(TensorTaskTest, GoesOnFromAModelAndInOtherWays) {
  const auto first = Train({1, 1});
  start_.set_model_manifest(first[0].task->result.model_manifest());
  const std::pair<const char*, void (*)(spec::JobSpec&)> ways[] = {
      {"accumulate", [](spec::JobSpec& spec) { spec.accumulate = 2; }},
      {"bf16", [](spec::JobSpec& spec) { spec.precision = "bf16"; }},
      {"compressed", [](spec::JobSpec& spec) { spec.gradients.compression = "bf16"; }},
      {"recomputed", [](spec::JobSpec& spec) { spec.recompute_activations = true; }}};
  for (const auto& [way, change] : ways) {
    const auto run = [&](const Layout& layout) {
      spec::JobSpec spec = SpecOf(layout);
      change(spec);
      return RunGang(RunTrain, spec, start_, layout.ranks, [](testing::FakeTask& task) {
        task.backend = *collectives::FindBackend("native");
      });
    };
    const auto one = run({1, 1});
    const auto two = run({2, 4});
    Model(two[0]);
    const double loss = one[0].metric("train/loss");
    EXPECT_NEAR(two[0].metric("train/loss"), loss, 1e-2 * loss) << way;
    EXPECT_LT(loss, 0.8 * first[0].metric("train/loss")) << way;
  }
}

// Two mates as threads, with a program each.
class TensorGangTest : public TensorTaskTest {
 protected:
  void Run(const std::function<Status(TensorGang&, nn::TrainingProgram&)>& rank_0,
           const std::function<Status(TensorGang&, nn::TrainingProgram&)>& rank_1) {
    const auto threads = std::make_shared<testing::ThreadGang>(2);
    const spec::JobSpec spec = SpecOf({2, 2});
    std::vector<std::thread> ranks;
    for (uint32_t rank = 0; rank < 2; ++rank) {
      ranks.emplace_back([&, rank] {
        wire::StartTask start = start_;
        start.set_rank(rank);
        start.set_size(2);
        testing::FakeTask task(*objects_, spec, start, threads);
        task.backend = *collectives::FindBackend("native");
        auto gang = task.JoinGang();
        ASSERT_TRUE(gang.ok()) << gang.status().ToString();
        auto tensor = TensorGang::Join(task, **gang);
        ASSERT_TRUE(tensor.ok()) << tensor.status().ToString();
        nn::TrainingProgram::Options options;
        const nn::DataShape shape{.kind = nn::DataShape::Kind::kTokens,
                                  .vocabulary = 256,
                                  .context = 16,
                                  .per_token = true};
        options.model = nn::ResolveModel(spec.model, shape).value();
        options.tensor = TensorPlaceOf(static_cast<int>(rank), 2);
        const auto program =
            nn::TrainingProgram::Build(nn::MakeSignature(options.model, shape).value(), options);
        ASSERT_TRUE(program.ok()) << program.status().ToString();
        (*program)->JoinTensorGroup(tensor->get());
        status[rank] = (rank == 0 ? rank_0 : rank_1)(**tensor, **program);
      });
    }
    for (std::thread& thread : ranks) thread.join();
  }
  Status status[2];
};

TEST_F(TensorGangTest, ADeadMateEndsAPassInsteadOfHangingIt) {
  const auto passes = [](TensorGang& gang, nn::TrainingProgram&) {
    std::vector<float> values(1000, 1.0f);
    for (int i = 0; i < 1000 && gang.status().ok(); ++i) {
      gang.AllReduce(values.data(), values.data(), values.size());
    }
    const Status first = gang.status();
    gang.AllGather(values.data(), nullptr, 4);  // at once, and nothing is written
    EXPECT_EQ(gang.status().message(), first.message());
    return first;
  };
  const auto dies = [](TensorGang& gang, nn::TrainingProgram&) {
    float value = 1;
    std::vector<float> values(1000, 1.0f);
    gang.AllReduce(values.data(), values.data(), values.size());
    EXPECT_EQ(values[999], 2 * value);
    return Status::Ok();  // its groups go with it
  };
  Run(passes, dies);
  EXPECT_EQ(status[0].code(), StatusCode::kAborted) << status[0].ToString();
  EXPECT_TRUE(status[1].ok());
}

TEST_F(TensorGangTest, MatesThatDriftApartAreFound) {
  const auto agree = [](float more) {
    return [more](TensorGang& gang, nn::TrainingProgram& program) {
      StepSums sums;
      sums.stop = more > 0 ? 1 : 0;
      LEPTON_RETURN_IF_ERROR(gang.AgreeOnStep(program, sums));
      EXPECT_EQ(sums.stop, 1) << "one of them wishes it";
      // Of what both hold.
      program.weights()[5] += more;
      return gang.AgreeOnStep(program, sums);
    };
  };
  Run(agree(0), agree(0.5f));
  for (const Status& one : status) {
    EXPECT_EQ(one.code(), StatusCode::kDataLoss);
    EXPECT_NE(one.message().find("ranks 0 and 1, which share a model, do not have the same "
                                 "undivided parameters"),
              std::string::npos)
        << one.ToString();
  }
}

TEST_F(TensorGangTest, UndividedWeightsAreTheFirstMates) {
  const auto share = [](float value) {
    return [value](TensorGang& gang, nn::TrainingProgram& program) -> Status {
      for (float& weight : program.weights()) weight = value;
      LEPTON_RETURN_IF_ERROR(gang.ShareUndivided(program));
      for (const nn::ParameterView& view : program.parameters()) {
        EXPECT_EQ(program.weights()[view.offset], view.slice.cut() ? value : 1) << view.name;
      }
      return Status::Ok();
    };
  };
  Run(share(1), share(2));
  for (const Status& one : status) EXPECT_TRUE(one.ok()) << one.ToString();
}

}  // namespace
}  // namespace lepton::worker
