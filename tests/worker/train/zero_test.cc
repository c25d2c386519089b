// A training state in slices: the bits are those of the whole one, whoever dies, comes and goes.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "tests/worker/train/thread_gang.h"
#include "worker/train/parameter_digest.h"
#include "worker/train/train_loop.h"
#include "worker/train/train_task.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using collectives::DataType;
using collectives::ReduceOp;
using ::testing::HasSubstr;
using testing::ThreadCommunicator;
using testing::ThreadGang;

TEST(ZeroLayout, EverySliceHasAnOwnerAndABuddyAndEveryRankTwoSlices) {
  constexpr int64_t kElements = (int64_t{1} << 14) * 40 + 77;
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const int stripes : {1, 3}) {
      const ZeroLayout layout(kElements, ranks, stripes);
      int64_t at = 0;
      for (int stripe = 0; stripe < stripes; ++stripe) {
        EXPECT_EQ(layout.stripe(stripe).begin, at);
        for (int position = 0; position < ranks; ++position) {
          const int rank = layout.OwnerAt(position, stripe);
          EXPECT_EQ(layout.part(rank, stripe).begin, at);
          EXPECT_EQ(at % (1 << 14), 0) << "whole blocks of the norm";
          at = layout.part(rank, stripe).end;
        }
        EXPECT_EQ(layout.stripe(stripe).end, at);
      }
      EXPECT_EQ(at, kElements);
      std::map<int, int> holders;
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(layout.HeldBy(rank).size(), static_cast<size_t>(stripes * std::min(2, ranks)));
        for (int slice = 0; slice < ranks; ++slice) holders[slice] += layout.Holds(rank, slice);
      }
      for (const auto& [slice, count] : holders) EXPECT_EQ(count, std::min(2, ranks)) << slice;
    }
    // Pairs, so that one may go in each; of an odd number three are a ring.
    int paired = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(MirroredBy(BuddyOf(rank, ranks), ranks), rank);
      EXPECT_EQ(BuddyOf(rank, ranks) == rank, ranks == 1);
      paired += BuddyOf(BuddyOf(rank, ranks), ranks) == rank;
    }
    EXPECT_EQ(paired, ranks % 2 == 0 || ranks == 1 ? ranks : ranks - 3) << ranks;
  }
}

TEST(ZeroLayout, StripesAreOfSomeSizeAndLeaveEachRankSomeBlocks) {
  constexpr int64_t kMillion = 1'000'000;
  EXPECT_EQ(StripesFor(1000, 1 << 20, 4), 1);
  EXPECT_EQ(StripesFor(kMillion, 1 << 20, 2), 3) << "of at least a MiB";
  EXPECT_EQ(StripesFor(kMillion, 1 << 10, 20), 3) << "62 blocks, for twenty ranks";
  EXPECT_EQ(StripesFor(1000 * kMillion, 1 << 20, 64), 64);
}

TEST(ZeroLayout, AModelOfFewBlocksLeavesRanksWithoutASlice) {
  const ZeroLayout layout(100, 4);
  int64_t elements = 0;
  for (int rank = 0; rank < 4; ++rank) elements += layout.slice_size(rank);
  EXPECT_EQ(elements, 100);
}

// ---- ranks as threads ------------------------------------------------------------------------

constexpr int kShards = 4;
constexpr int kColumns = 24;
constexpr int kRows = 96;

// In the group's collective call number `call` the victim dies; of the others those in `lucky`
// still get the result. Or it dies before its message number `message`.
struct Death {
  int call = -1;  // none
  int victim = 0;
  unsigned lucky = 0;  // bit by rank
  int message = -1;
};

// Calls go through to the threads' gang, until the planned death.
class MortalCommunicator final : public collectives::Communicator {
 public:
  MortalCommunicator(std::shared_ptr<ThreadGang> gang, int rank, const Death& death)
      : gang_(gang), inner_(gang, rank, kShards), death_(death) {}
  bool dead() const { return dead_; }
  int calls() const { return calls_; }

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string_view backend() const override { return "threads"; }
  Status AllReduce(const void* in, void* out, size_t count, DataType type, ReduceOp op) override {
    return Together(out, count * collectives::DataTypeSize(type),
                    [&](void* to) { return inner_.AllReduce(in, to, count, type, op); });
  }
  Status AllGather(const void* in, void* out, size_t count, DataType type) override {
    const size_t bytes =
        count * collectives::DataTypeSize(type) * static_cast<size_t>(inner_.size());
    return Together(out, bytes, [&](void* to) { return inner_.AllGather(in, to, count, type); });
  }
  Status AllToAll(const void* in, void* out, size_t count, DataType type) override {
    const size_t bytes =
        count * collectives::DataTypeSize(type) * static_cast<size_t>(inner_.size());
    return Together(out, bytes, [&](void* to) { return inner_.AllToAll(in, to, count, type); });
  }
  Status Broadcast(void* data, size_t count, DataType type, int root) override {
    const size_t bytes = count * collectives::DataTypeSize(type);
    return Together(data, bytes, [&](void* to) {
      std::memcpy(to, data, bytes);
      return inner_.Broadcast(to, count, type, root);
    });
  }
  Status Barrier() override {
    return Together(nullptr, 0, [&](void*) { return inner_.Barrier(); });
  }
  Status Send(const void* data, size_t count, DataType type, int peer) override {
    LEPTON_RETURN_IF_ERROR(Alone());
    return inner_.Send(data, count, type, peer);
  }
  Status Recv(void* data, size_t count, DataType type, int peer) override {
    LEPTON_RETURN_IF_ERROR(Alone());
    return inner_.Recv(data, count, type, peer);
  }
  Status ReduceScatter(const void*, void*, size_t, DataType, ReduceOp) override { return Unused(); }
  Status Gather(const void*, void*, size_t, DataType, int) override { return Unused(); }
  Status Scatter(const void*, void*, size_t, DataType, int) override { return Unused(); }
  collectives::HandlePtr AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                                        ReduceOp op) override {
    return std::make_unique<Finished>(AllReduce(in, out, count, type, op));
  }
  collectives::HandlePtr AllToAllAsync(const void* in, void* out, size_t count,
                                       DataType type) override {
    return std::make_unique<Finished>(AllToAll(in, out, count, type));
  }
  void Abort(Status cause) override { gang_->Abort(std::move(cause)); }

 private:
  class Finished final : public collectives::Handle {
   public:
    explicit Finished(Status status) : status_(std::move(status)) {}
    bool Done() const override { return true; }
    Status Wait(Deadline) override { return status_; }

   private:
    const Status status_;
  };
  static Status Unused() { return InvalidArgument("training does not use this"); }

  Status Die() {
    dead_ = true;
    gang_->Abort(Aborted("a rank died"));
    return Aborted("this rank died");
  }
  Status Alone() {
    return messages_++ == death_.message && rank() == death_.victim ? Die() : Status::Ok();
  }
  template <typename Call>
  Status Together(void* out, size_t bytes, const Call& call) {
    if (calls_++ != death_.call) return call(out);
    std::vector<char> result(bytes + 1);
    LEPTON_RETURN_IF_ERROR(call(result.data()));
    LEPTON_RETURN_IF_ERROR(gang_->Meet());
    if (rank() == death_.victim) return Die();
    if ((death_.lucky >> rank() & 1) == 0) return Aborted("a peer died");
    if (bytes > 0) std::memcpy(out, result.data(), bytes);
    return Status::Ok();
  }

  const std::shared_ptr<ThreadGang> gang_;
  ThreadCommunicator inner_;
  const Death death_;
  int calls_ = 0, messages_ = 0;
  bool dead_ = false;
};

// Its update may go wrong, and its wishes come at given steps.
class ZeroObserver final : public TrainObserver {
 public:
  bool StopRequested() override { return false; }
  bool LeaveRequested() override { return step_ >= leave_at; }
  bool RegroupRequested() override { return step_ == regroup_at; }
  void Computed(uint64_t step, nn::TrainingProgram&) override { step_ = step; }
  void Committed(uint64_t step) override { committed = step; }
  void Diverged(const Divergence& divergence) override { diverged = divergence; }
  void Progress(const TrainProgress&) override {}
  Result<storage::Digest> Checkpoint(uint64_t, const Metrics&) override { return Internal("none"); }

  uint64_t leave_at = 1000, regroup_at = 1000;
  uint64_t committed = 0;
  std::optional<Divergence> diverged;

 private:
  uint64_t step_ = 0;
};

struct Member {
  std::unique_ptr<nn::TrainingProgram> program;
  ZeroObserver observer;
  std::unique_ptr<TrainLoop> loop;
  std::unique_ptr<TrainRun> run;
  bool has_state = true;
  Status status;
  TrainOutcome outcome;
};

class ZeroTraining {
 public:
  explicit ZeroTraining(const std::string& more, uint64_t steps = 5, int hidden = 230,
                        int layers = 2)
      : spec_(*spec::ParseJobSpec(fmt::format(
            "{{kind: train, dataset: {{name: made}}, batch_size: 16, seed: 5, steps: {}, "
            "checkpoint: {{every_steps: 1000}}, elastic: {{logical_shards: {}}}, "
            "resources: {{max_workers: 5}}, model: {{hidden: [{}]}}, {}}}",
            steps, kShards, fmt::join(std::vector<int>(layers, hidden), ", "), more))),
        steps_(steps) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(kRows * kColumns);
    std::vector<int32_t> classes;
    for (float& value : x) value = normal(random);
    for (int row = 0; row < kRows; ++row) classes.push_back(x[row * kColumns] > 0 ? 1 : 0);
    std::vector<int64_t> numbers(kRows);
    std::iota(numbers.begin(), numbers.end(), 0);
    auto train = std::make_shared<TableExamples>(numbers, x, kColumns);
    train->SetLabels(classes, {});
    data_.train = data_.train_plain = data_.validation = data_.test = train;
  }

  Member& Add(bool has_state = true) {
    members.push_back(std::make_unique<Member>());
    Member& member = *members.back();
    nn::TrainingProgram::Options options;
    nn::DataShape shape;
    shape.features = kColumns;
    shape.outputs = 2;
    options.model = *nn::ResolveModel(spec_.model, shape);
    options.optimizer = spec_.optimizer;
    options.schedule = spec_.schedule;
    options.total_steps = static_cast<int64_t>(steps_);
    options.clip_norm = spec_.clip_norm;
    options.precision = spec_.precision;
    options.seed = has_state ? spec_.seed : 77;  // what a joiner drew is of no use
    options.keeps_optimizer_state = spec_.parallel.zero == 0;
    options.keeps_gradients = spec_.parallel.zero < 2;
    auto built = nn::TrainingProgram::Build(*nn::MakeSignature(options.model, shape), options);
    EXPECT_TRUE(built.ok()) << built.status().ToString();
    member.program = *std::move(built);
    member.has_state = has_state;
    return member;
  }

  // All members meet, and go on until the group is over. Those that died or left are members no
  // more. Returns the calls of the first member.
  int Group(const Death& death = {}) {
    const int size = static_cast<int>(members.size());
    const auto gang = std::make_shared<ThreadGang>(size);
    std::vector<std::unique_ptr<MortalCommunicator>> ranks;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(std::make_unique<MortalCommunicator>(gang, rank, death));
    }
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] { TakePart(*members[rank], *ranks[rank]); });
    }
    for (std::thread& thread : threads) thread.join();
    const int calls = ranks[0]->calls();
    for (int rank = size; rank-- > 0;) {
      if (ranks[rank]->dead() || members[rank]->status.code() == StatusCode::kCancelled) {
        members.erase(members.begin() + rank);
      }
    }
    return calls;
  }

  // Of members that are through.
  std::string Weights(const Member& member) const {
    EXPECT_TRUE(member.status.ok()) << member.status.ToString();
    const std::span<float> weights = member.program->weights();
    return {reinterpret_cast<const char*>(weights.data()), weights.size_bytes()};
  }
  void ExpectAll(const std::string& weights, const std::string& where) const {
    EXPECT_FALSE(members.empty());
    for (const auto& member : members) {
      EXPECT_TRUE(Weights(*member) == weights) << where << ": other bits";
      EXPECT_EQ(member->outcome.steps, steps_) << where;
    }
  }

  std::vector<std::unique_ptr<Member>> members;

 private:
  void TakePart(Member& member, collectives::Communicator& gang) {
    if (member.loop == nullptr) {
      member.run = std::make_unique<TrainRun>(TrainRun{.spec = spec_,
                                                       .data = data_,
                                                       .program = *member.program,
                                                       .gang = gang,
                                                       .last_step = steps_});
      member.loop = std::make_unique<TrainLoop>(*member.run, member.observer);
    }
    member.status = [&]() -> Status {
      LEPTON_RETURN_IF_ERROR(member.loop->Enter(gang, member.has_state).status());
      member.has_state = true;
      LEPTON_ASSIGN_OR_RETURN(member.outcome, member.loop->Run());
      return Status::Ok();
    }();
    // As a process that ends: its peers must not wait for it.
    if (!member.status.ok()) gang.Abort(Aborted("a rank is gone"));
  }

  const spec::JobSpec spec_;
  const uint64_t steps_;
  PreparedData data_;
};

constexpr char kAdam[] = "optimizer: {name: adamw, lr: 0.01, decay: matrices}, clip_norm: 0.5";

struct ZeroCase {
  int stage;
  bool striped;  // a model of several stripes, which takes longer
};

class Zero : public ::testing::TestWithParam<ZeroCase> {
 protected:
  void SetUp() override { FLAGS_minloglevel = 2; }
  static int stage() { return GetParam().stage; }
  static bool striped() { return GetParam().striped; }
  static constexpr int kSmall = 230, kStriped = 560;
  static ZeroTraining Training(int stage, const std::string& more) {
    const bool buckets = more.find("gradients") == more.npos;
    return ZeroTraining(fmt::format("parallel: {{zero: {}}}, {}{}", stage, more,
                                    buckets ? ", gradients: {bucket_bytes: 65536}" : ""),
                        5, striped() ? kStriped : kSmall);
  }
  static ZeroTraining Training(const std::string& more = kAdam) { return Training(stage(), more); }
  static std::string Undisturbed(const std::string& more = kAdam, int stage = 0, int ranks = 1) {
    ZeroTraining training = Training(stage, more);
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    training.Group();
    const std::string weights = training.Weights(*training.members[0]);
    training.ExpectAll(weights, "undisturbed");
    return weights;
  }
};
INSTANTIATE_TEST_SUITE_P(
    Stages, Zero, ::testing::Values(ZeroCase{1, false}, ZeroCase{2, false}, ZeroCase{2, true}),
    [](const auto& one) {
      return fmt::format("Stage{}{}", one.param.stage, one.param.striped ? "InStripes" : "");
    });

TEST_P(Zero, GivesTheBitsOfTheWholeStateForAnyNumberOfRanks) {
  for (const std::string more :
       {"optimizer: {name: adamw, lr: 0.01}, clip_norm: 0.5",
        "optimizer: {name: adam, lr: 0.01}, clip_norm: 100, precision: bf16",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.01}, accumulate: 3",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0}, gradients: {bucket_bytes: 4096}",
        "optimizer: {name: adamw, decay: matrices}, gradients: {compression: bf16}"}) {
    if (stage() == 2 && more.find("compression") != more.npos) continue;
    const std::string whole = Undisturbed(more);
    EXPECT_TRUE(Undisturbed(more, 0, 3) == whole) << "stage 0: " << more;
    for (const int ranks : {1, 2, 3, 4, 5}) {
      EXPECT_TRUE(Undisturbed(more, stage(), ranks) == whole) << ranks << " ranks: " << more;
    }
  }
}

// Many layers, since a gradient that passes is one of a layer: 2.6 million parameters.
StateBytes MostBytes(int stage, int ranks) {
  ZeroTraining training(
      fmt::format("parallel: {{zero: {}}}, gradients: {{bucket_bytes: 65536}}, {}", stage, kAdam),
      2, 256, 40);
  for (int rank = 0; rank < ranks; ++rank) training.Add();
  training.Group();
  StateBytes most;
  for (const auto& member : training.members) {
    const StateBytes& bytes = member->outcome.bytes;
    most.weights = std::max(most.weights, bytes.weights);
    most.gradients = std::max(most.gradients, bytes.gradients);
    most.optimizer = std::max(most.optimizer, bytes.optimizer);
    most.arena = std::max(most.arena, bytes.arena);
  }
  std::cout << fmt::format(
      "stage {}, {} ranks: MB of weights {:.1f}, gradients {:.1f}, optimizer {:.1f}, arena "
      "{:.1f}\n",
      stage, ranks, static_cast<double>(most.weights) * 1e-6,
      static_cast<double>(most.gradients) * 1e-6, static_cast<double>(most.optimizer) * 1e-6,
      static_cast<double>(most.arena) * 1e-6);
  return most;
}

TEST(ZeroBytes, FallWithTheRanksByTheStage) {
  FLAGS_minloglevel = 2;
  constexpr double kRounding = 1.1;  // whole blocks of 2^14 elements
  for (const int ranks : {3, 4, 5}) {
    const StateBytes whole = MostBytes(0, ranks), one = MostBytes(1, ranks),
                     two = MostBytes(2, ranks);
    const double share = 2.0 / ranks;
    const auto optimizer = static_cast<double>(whole.optimizer);
    EXPECT_LE(static_cast<double>(one.optimizer), kRounding * share * optimizer) << ranks;
    EXPECT_LE(static_cast<double>(two.optimizer), kRounding * share * optimizer) << ranks;
    EXPECT_GE(static_cast<double>(one.optimizer), share * optimizer) << "the mirror is there";
    EXPECT_EQ(one.gradients, whole.gradients);
    // With as many shards as ranks or fewer nothing but the slices remains, and staging.
    if (ranks < kShards) continue;
    EXPECT_LE(static_cast<double>(two.gradients + two.arena),
              (share + 0.3) * static_cast<double>(whole.gradients + whole.arena))
        << ranks;
  }
}

// Wherever a rank dies, and whichever of the others still got the result of the call that it died
// in: no step is lost, nothing is read from a checkpoint, the bits are the undisturbed run's.
TEST_P(Zero, OneDeathAtAnyCallCostsNothing) {
  const std::string calm = Undisturbed();
  for (const int ranks : striped() ? std::vector{3, 4} : std::vector{2, 3, 4, 5}) {
    ZeroTraining counted = Training();
    for (int rank = 0; rank < ranks; ++rank) counted.Add();
    const int calls = counted.Group();
    ASSERT_GT(calls, 16);
    for (int call = 0; call < calls; ++call) {
      // The steps are alike.
      if (call > 14 && call < calls - 6) continue;
      const int victim = call % ranks;
      for (const unsigned lucky : {0u, ~0u, 0b1010u, 0b0101u}) {
        if (striped() && lucky != 0b1010u) continue;
        ZeroTraining training = Training();
        for (int rank = 0; rank < ranks; ++rank) training.Add();
        training.Group({call, victim, lucky});
        const std::string where =
            fmt::format("rank {} of {} dies in call {}, lucky {:b}", victim, ranks, call, lucky);
        ASSERT_EQ(training.members.size(), static_cast<size_t>(ranks - 1)) << where;
        training.Group();
        training.ExpectAll(calm, where);
      }
    }
  }
}

// A second rank dies while the others recover from the first one's death.
TEST_P(Zero, ADeathInTheRecoveryCostsNothingUnlessTheBuddyWasTheFirst) {
  const std::string calm = Undisturbed();
  constexpr int kRanks = 4;
  int lost = 0, fine = 0;
  for (const int first_call : striped() ? std::vector{6} : std::vector{3, 4, 5, 6, 7, 8, 9}) {
    for (int second = 0; second < kRanks - 1; ++second) {
      for (int at = 0; at < 14; ++at) {
        ZeroTraining training = Training();
        for (int rank = 0; rank < kRanks; ++rank) training.Add();
        constexpr int kFirst = 1;
        training.Group({first_call, kFirst, 0b0100u});
        ASSERT_EQ(training.members.size(), 3u);
        const bool buddy = (second < kFirst ? second : second + 1) == BuddyOf(kFirst, kRanks);
        Death death{.call = at < 8 ? at : -1, .victim = second, .lucky = 0b010u};
        if (at >= 8) death.message = at - 8;
        training.Group(death);
        const std::string where =
            fmt::format("call {}, then rank {} of 3 at {}", first_call, second, at);
        if (training.members.size() == 2) training.Group();
        if (training.members[0]->status.code() == StatusCode::kInternal) {
          EXPECT_TRUE(buddy) << where;
          for (const auto& member : training.members) {
            EXPECT_THAT(member->status.message(), HasSubstr("going on from the last checkpoint"));
          }
          ++lost;
        } else {
          training.ExpectAll(calm, where);
          ++fine;
        }
      }
    }
  }
  std::cout << fine << " runs went on, " << lost << " lost both buddies\n";
  if (striped()) return;
  EXPECT_GT(lost, 0) << "both of a pair within a recovery";
  EXPECT_GT(fine, 2 * lost);
}

TEST_P(Zero, BothBuddiesAtOnceAreALossThatAllNotice) {
  ZeroTraining training = Training();
  for (int rank = 0; rank < 4; ++rank) training.Add();
  training.members[0]->observer.regroup_at = 3;
  training.Group();
  ASSERT_EQ(training.members.size(), 4u);
  EXPECT_EQ(training.members[0]->observer.committed, 3u);
  training.members.erase(training.members.begin() + 3);
  training.members.erase(training.members.begin() + 1);
  training.Group();
  for (const auto& member : training.members) {
    EXPECT_EQ(member->status.code(), StatusCode::kInternal) << member->status.ToString();
    EXPECT_THAT(member->status.message(), HasSubstr("both buddies: going on from the last"));
  }
}

TEST_P(Zero, OneOfEachPairMayGoAtOnce) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  for (int rank = 0; rank < 6; ++rank) training.Add();
  training.members[0]->observer.regroup_at = 3;
  training.Group();
  for (const int rank : {5, 1, 0}) training.members.erase(training.members.begin() + rank);
  training.Group();
  training.ExpectAll(calm, "three of six");
}

TEST_P(Zero, JoinersTakeTheirSlicesFromThoseWhoHaveThem) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  training.Add();
  for (uint64_t step = 1; step <= 4; ++step) {
    for (const auto& member : training.members) member->observer.regroup_at = step;
    training.Group();
    training.Add(/*has_state=*/false);
  }
  training.Group();
  EXPECT_EQ(training.members.size(), 5u);
  training.ExpectAll(calm, "one to five");
}

TEST_P(Zero, BuddiesThatLeaveTogetherHandOver) {
  const std::string calm = Undisturbed();
  for (const unsigned leavers : {0b0001u, 0b0101u, 0b1010u, 0b0111u, 0b1110u}) {
    ZeroTraining training = Training();
    size_t left = 0;
    for (int rank = 0; rank < 4; ++rank) {
      if ((leavers >> rank & 1) == 0) {
        training.Add();
        continue;
      }
      training.Add().observer.leave_at = 2;
      ++left;
    }
    training.Group();
    EXPECT_EQ(training.members.size(), 4 - left);
    training.Group();
    training.ExpectAll(calm, fmt::format("leave: {:b}", leavers));
  }
}

// Passes everything on, but one update comes out wrong: as if the optimiser's state had changed by
// itself, or the host computed otherwise.
class WrongUpdate final : public nn::TrainingProgram {
 public:
  WrongUpdate(std::unique_ptr<nn::TrainingProgram> inner, uint64_t step)
      : inner_(std::move(inner)), step_(step) {}
  const nn::Signature& signature() const override { return inner_->signature(); }
  const std::vector<nn::ParameterView>& parameters() const override { return inner_->parameters(); }
  std::span<float> weights() override { return inner_->weights(); }
  std::span<float> gradients() override { return inner_->gradients(); }
  std::span<float> optimizer_state() override { return inner_->optimizer_state(); }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets& targets,
                                      uint64_t step, uint32_t shard) override {
    return inner_->ForwardBackward(batch, targets, step, shard);
  }
  void WatchGradients(GradientReady ready) override { inner_->WatchGradients(std::move(ready)); }
  std::span<const float> gradient(size_t parameter) override { return inner_->gradient(parameter); }
  double ApplyGradients(uint64_t step, double scale) override {
    return inner_->ApplyGradients(step, scale);
  }
  int state_per_element() const override { return inner_->state_per_element(); }
  void ApplyPart(uint64_t step, double scale, double norm, const Part& part) override {
    inner_->ApplyPart(step, scale, norm, part);
    if (step + 1 == step_) inner_->weights()[static_cast<size_t>(part.begin)] += 1e-3f;
  }
  void FinishParts(double scale) override { inner_->FinishParts(scale); }
  double LearningRate(uint64_t step) const override { return inner_->LearningRate(step); }
  Status Forward(const nn::Batch& batch, std::span<float> logits) override {
    return inner_->Forward(batch, logits);
  }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets& targets,
                               std::span<float> logits) override {
    return inner_->Evaluate(batch, targets, logits);
  }

 private:
  const std::unique_ptr<nn::TrainingProgram> inner_;
  const uint64_t step_;
};

TEST_P(Zero, BuddiesThatComputeOtherwiseEndTheJobBeforeAnybodyElseHasIt) {
  for (const int ranks : {2, 4}) {
    ZeroTraining training = Training();
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    Member& wrong = *training.members[1];
    wrong.program = std::make_unique<WrongUpdate>(std::move(wrong.program), 3);
    training.Group();
    for (const auto& member : training.members) {
      EXPECT_EQ(member->status.code(), StatusCode::kDataLoss) << member->status.ToString();
      EXPECT_THAT(member->status.message(),
                  HasSubstr("do not hold the same parameters after step 3"));
      EXPECT_EQ(member->observer.committed, 2u);
      ASSERT_TRUE(member->observer.diverged.has_value());
      EXPECT_EQ(member->observer.diverged->agreeing, 0);
    }
  }
}

// ---- tasks -----------------------------------------------------------------------------------

class ZeroTaskTest : public testing::TaskTest {
 protected:
  static spec::JobSpec SpecOf(int stage) {
    return Spec(fmt::format(R"(
kind: train
dataset: {{name: blobs}}
model: {{hidden: [400, 400]}}
gradients: {{bucket_bytes: 65536}}
optimizer: {{name: adamw, lr: 0.01}}
clip_norm: 1
batch_size: 20
epochs: 2
elastic: {{logical_shards: 4}}
resources: {{max_workers: 4}}
checkpoint: {{every_steps: 5}}
parallel: {{zero: {}}}
)",
                            stage));
  }
  std::vector<testing::Rank> Train(int stage, wire::StartTask start, int ranks,
                                   uint64_t stop_at = 0) {
    return RunGang(RunTrain, SpecOf(stage), start, ranks, [&](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
      if (task.start().rank() == 0) task.stop_at_checkpoint = stop_at;
    });
  }
  std::string Weights(const testing::Rank& rank) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    return ModelOf(rank).weights_sha256;
  }
};

TEST_F(ZeroTaskTest, ACheckpointOfAnyStageResumesUnderAnyOtherWithTheSameDigest) {
  wire::StartTask start;
  start.set_kind("train");
  start.set_dataset_manifest(Import(testing::BlobsCsv(303, 3)));
  const std::string undisturbed = Weights(Train(0, start, 1)[0]);
  struct Case {
    int stage, ranks, then, then_ranks;
  };
  for (const Case& one : {Case{1, 4, 0, 1}, Case{0, 2, 1, 4}, Case{1, 3, 1, 2}, Case{1, 2, 2, 3},
                          Case{2, 4, 0, 2}, Case{0, 1, 2, 4}, Case{2, 3, 1, 4}}) {
    const auto stopped = Train(one.stage, start, one.ranks, 10);
    for (const auto& rank : stopped) {
      EXPECT_EQ(rank.status.code(), StatusCode::kCancelled) << rank.status.ToString();
    }
    ASSERT_FALSE(stopped[0].task->checkpoints.empty());
    const wire::TaskCheckpoint& last = stopped[0].task->checkpoints.back();
    EXPECT_EQ(last.objects_size(), one.stage == 0 ? 1 : 1 + one.ranks)
        << "weights, and a slice a rank";
    wire::StartTask again = start;
    again.set_resume_checkpoint(last.manifest());
    EXPECT_EQ(Weights(Train(one.then, again, one.then_ranks)[0]), undisturbed)
        << one.stage << " with " << one.ranks << ", then " << one.then << " with "
        << one.then_ranks;
  }
}

// Statistics of batch normalisation are every rank's, and summed shard by shard.
TEST_F(ZeroTaskTest, AModelWithStatisticsHasTheSameDigest) {
  wire::StartTask start;
  start.set_kind("train");
  start.set_dataset_manifest(
      Import(ReadFile(std::string(LEPTON_SOURCE_DIR) + "/scripts/data/digits.csv").value()));
  const auto digest = [&](int stage, int ranks, int accumulate) {
    const spec::JobSpec spec = Spec(fmt::format(
        "{{kind: train, dataset: {{name: digits, image: {{channels: 1, height: 8, width: 8}}}}, "
        "batch_size: 40, steps: 6, accumulate: {}, "
        "model: {{arch: resnet18, stem: small, stem_width: 8, widths: [8, 16], depths: [1, 1]}}, "
        "elastic: {{logical_shards: 4}}, resources: {{max_workers: 4}}, parallel: {{zero: {}}}}}",
        accumulate, stage));
    const auto trained = RunGang(RunTrain, spec, start, ranks, [](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
    });
    EXPECT_EQ(trained[0].metric("train/loss"),
              trained[static_cast<size_t>(ranks - 1)].metric("train/loss"));
    return Weights(trained[0]);
  };
  for (const int accumulate : {1, 3}) {
    const std::string whole = digest(0, 2, accumulate);
    for (const int stage : {1, 2}) {
      for (const int ranks : {1, 3, 4}) {
        EXPECT_EQ(digest(stage, ranks, accumulate), whole) << stage << " with " << ranks;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::worker
