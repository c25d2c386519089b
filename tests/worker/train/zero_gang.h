// Ranks as threads, which train with a state in slices, die where a test says so, leave and join.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/train/checkpoint_board.h"
#include "tests/worker/train/thread_gang.h"
#include "worker/data/image_examples.h"
#include "worker/train/local_rounds.h"
#include "worker/train/train_loop.h"

namespace lepton::testing {

inline constexpr int kShards = 4;
inline constexpr int kColumns = 24;
inline constexpr int kRows = 96;

// In the group's collective call number `call` the victim dies; of the others those in `lucky`
// still get the result. Or it dies before its message number `message`. Buffers of calls that fail
// are garbage, as the contract has it.
struct Death {
  static constexpr int kNobody = -1;  // as victim: the group breaks by itself

  int call = -1;  // none
  int victim = 0;
  unsigned lucky = 0;  // bit by rank
  int message = -1;
};

// Calls go through to the threads' gang, until the planned death.
class MortalCommunicator final : public collectives::Communicator {
 public:
  MortalCommunicator(std::shared_ptr<ThreadGang> gang, int rank, int shards, const Death& death)
      : gang_(gang), inner_(gang, rank, shards), death_(death) {}
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
    std::vector<char> sent(bytes);
    std::memcpy(sent.data(), data, bytes);
    const Status status = Together(data, bytes, [&](void* to) {
      std::memcpy(to, sent.data(), bytes);
      return inner_.Broadcast(to, count, type, root);
    });
    if (rank() == root) std::memcpy(data, sent.data(), bytes);
    return status;
  }
  Status Barrier() override {
    return Together(nullptr, 0, [&](void*) { return inner_.Barrier(); });
  }
  Status Send(const void* data, size_t count, DataType type, int peer) override {
    LEPTON_RETURN_IF_ERROR(Alone());
    return inner_.Send(data, count, type, peer);
  }
  Status Recv(void* data, size_t count, DataType type, int peer) override {
    const Status alive = Alone();
    const Status status = alive.ok() ? inner_.Recv(data, count, type, peer) : alive;
    if (!status.ok()) Garble(data, count * collectives::DataTypeSize(type));
    return status;
  }
  Status ReduceScatter(const void* in, void* out, size_t count, DataType type,
                       ReduceOp op) override {
    return Together(out, count * collectives::DataTypeSize(type),
                    [&](void* to) { return inner_.ReduceScatter(in, to, count, type, op); });
  }
  Status Gather(const void*, void*, size_t, DataType, int) override { return Unused(); }
  Status Scatter(const void*, void*, size_t, DataType, int) override { return Unused(); }
  collectives::HandlePtr AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                                        ReduceOp op) override {
    return std::make_unique<Finished>(AllReduce(in, out, count, type, op));
  }
  collectives::HandlePtr ReduceScatterAsync(const void* in, void* out, size_t count, DataType type,
                                            ReduceOp op) override {
    return std::make_unique<Finished>(ReduceScatter(in, out, count, type, op));
  }
  collectives::HandlePtr AllToAllAsync(const void* in, void* out, size_t count,
                                       DataType type) override {
    return std::make_unique<Finished>(AllToAll(in, out, count, type));
  }
  collectives::HandlePtr AllGatherAsync(const void* in, void* out, size_t count,
                                        DataType type) override {
    return std::make_unique<Finished>(AllGather(in, out, count, type));
  }
  collectives::HandlePtr BroadcastAsync(void* data, size_t count, DataType type,
                                        int root) override {
    return std::make_unique<Finished>(Broadcast(data, count, type, root));
  }
  collectives::HandlePtr GatherAsync(const void*, void*, size_t, DataType, int) override {
    return std::make_unique<Finished>(Unused());
  }
  collectives::HandlePtr ScatterAsync(const void*, void*, size_t, DataType, int) override {
    return std::make_unique<Finished>(Unused());
  }
  collectives::HandlePtr BarrierAsync() override { return std::make_unique<Finished>(Barrier()); }
  collectives::HandlePtr SendAsync(const void* data, size_t count, DataType type,
                                   int peer) override {
    return std::make_unique<Finished>(Send(data, count, type, peer));
  }
  collectives::HandlePtr RecvAsync(void* data, size_t count, DataType type, int peer) override {
    return std::make_unique<Finished>(Recv(data, count, type, peer));
  }
  collectives::HandlePtr SendRecvAsync(const ToPeer& to, const FromPeer& from,
                                       DataType type) override {
    Status status = Send(to.in, to.count, type, to.peer);
    if (status.ok()) status = Recv(from.out, from.count, type, from.peer);
    return std::make_unique<Finished>(status);
  }
  void HoldLeaves(int holders) override { inner_.HoldLeaves(holders); }
  Status status() const override { return gang_->status(); }
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
    const Status status = calls_++ == death_.call ? TheLast(out, bytes, call) : call(out);
    if (!status.ok()) Garble(out, bytes);
    return status;
  }
  template <typename Call>
  Status TheLast(void* out, size_t bytes, const Call& call) {
    std::vector<char> result(bytes + 1);
    LEPTON_RETURN_IF_ERROR(call(result.data()));
    LEPTON_RETURN_IF_ERROR(gang_->Meet());
    if (rank() == death_.victim) return Die();
    if ((death_.lucky >> rank() & 1) == 0) return Aborted("a peer died");
    if (bytes > 0) std::memcpy(out, result.data(), bytes);
    return Status::Ok();
  }
  static void Garble(void* out, size_t bytes) {
    if (bytes > 0) std::memset(out, 0xFF, bytes);
  }

  const std::shared_ptr<ThreadGang> gang_;
  ThreadCommunicator inner_;
  const Death death_;
  int calls_ = 0, messages_ = 0;
  bool dead_ = false;
};

// Its update may go wrong, and its wishes come at given steps.
class ZeroObserver final : public worker::TrainObserver {
 public:
  bool StopRequested() override { return false; }
  bool LeaveRequested() override { return step_ >= leave_at || committed >= leave_behind; }
  bool RegroupRequested() override { return step_ == regroup_at; }
  Status Computed(uint64_t step, nn::TrainingProgram& program) override {
    step_ = step;
    if (on_computed) on_computed(step, program);
    return {};
  }
  void Committed(uint64_t step) override {
    committed = step;
    if (on_committed) on_committed(step);
  }
  void Diverged(const worker::Divergence& divergence) override { diverged = divergence; }
  void Progress(const worker::TrainProgress&) override {}
  CheckpointDone BeginSlice(uint64_t step, int, const Slices& slices) override {
    return board->AddSlice(step, slices);
  }
  CheckpointDone BeginManifest(const worker::CheckpointPoint& point,
                               const std::vector<storage::Digest>& slices) override {
    checkpoints.push_back(point.step);
    return board->AddManifest(point.step, slices);
  }
  CheckpointDone BeginCheckpoint(const worker::CheckpointPoint& point,
                                 const Slices& slices) override {
    checkpoints.push_back(point.step);
    return board->AddWhole(point.step, slices);
  }

  // Told so that the reduction of a step tells the others, or just behind the step.
  uint64_t leave_at = 1000, leave_behind = 1000, regroup_at = 1000;
  CheckpointBoard* board = nullptr;
  std::vector<uint64_t> checkpoints;  // whose manifests it has written
  uint64_t committed = 0;
  std::function<void(uint64_t, nn::TrainingProgram&)> on_computed;
  std::function<void(uint64_t)> on_committed;
  std::optional<worker::Divergence> diverged;

 private:
  uint64_t step_ = 0;
};

struct Member {
  int number = 0;  // in the order of Add
  std::unique_ptr<nn::TrainingProgram> program;
  std::unique_ptr<nn::OuterOptimizer> outer;
  ZeroObserver observer;
  std::unique_ptr<worker::TrainLoop> loop;
  std::unique_ptr<worker::TrainRun> run;
  bool has_state = true;
  bool entered = false;  // the newest group
  Status status;
  worker::TrainOutcome outcome;
  std::string weights;  // of all elements, once it is through
};

class ZeroTraining {
 public:
  explicit ZeroTraining(const std::string& more, uint64_t steps = 5, int hidden = 230,
                        int layers = 2)
      : spec_(*spec::ParseJobSpec(fmt::format(
            "{{kind: train, dataset: {{name: made}}, {}seed: 5, steps: {}, {}{}{}{}{}}}",
            more.find("batch_size") == more.npos ? "batch_size: 16, " : "", steps,
            more.find("checkpoint") == more.npos ? "checkpoint: {every_steps: 1000}, " : "",
            more.find("elastic") == more.npos
                ? fmt::format("elastic: {{logical_shards: {}}}, ", kShards)
                : "",
            more.find("resources") == more.npos ? "resources: {max_workers: 5}, " : "",
            more.find("model:") == more.npos
                ? fmt::format("model: {{hidden: [{}]}}, ",
                              fmt::join(std::vector<int>(layers, hidden), ", "))
                : "",
            more))),
        steps_(steps) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(kRows * kColumns);
    std::vector<int32_t> classes;
    for (float& value : x) value = normal(random);
    for (int row = 0; row < kRows; ++row) classes.push_back(x[row * kColumns] > 0 ? 1 : 0);
    std::vector<int64_t> numbers(kRows);
    std::iota(numbers.begin(), numbers.end(), 0);
    const auto take = [&](auto train) {
      train->SetLabels(classes, {});
      data_.train = data_.train_plain = data_.validation = data_.test = train;
    };
    if (Pictures()) {
      take(std::make_shared<worker::ImageExamples>(
          worker::PixelStore::Numbers(x, {1, 4, kColumns / 4}), numbers,
          worker::PixelScale{.mean = {0}, .scale = {1}}));
    } else {
      take(std::make_shared<worker::TableExamples>(numbers, x, kColumns));
    }
  }

  Member& Add(bool has_state = true) {
    members.push_back(std::make_unique<Member>());
    Member& member = *members.back();
    nn::TrainingProgram::Options options;
    nn::DataShape shape;
    shape.features = kColumns;
    if (Pictures()) {
      shape.kind = nn::DataShape::Kind::kImages;
      shape.channels = 1;
      shape.height = 4;
      shape.width = kColumns / 4;
    }
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
    options.keeps_packs = spec_.parallel.zero < 2;
    options.keeps_weights = spec_.parallel.zero < 3;
    auto built = nn::TrainingProgram::Build(*nn::MakeSignature(options.model, shape), options);
    EXPECT_TRUE(built.ok()) << built.status().ToString();
    member.program = *std::move(built);
    member.outer = worker::MakeOuterOptimizer(spec_, *member.program);
    member.has_state = has_state;
    member.number = added_++;
    member.observer.board = board.get();
    return member;
  }

  // All members meet, and go on until the group is over. Those that died are members no more, nor
  // those that left, which are `gone`. Returns the calls of the first member.
  int Group(const Death& death = {}) {
    const int size = static_cast<int>(members.size());
    const auto gang = std::make_shared<ThreadGang>(size);
    std::vector<std::unique_ptr<MortalCommunicator>> ranks;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(std::make_unique<MortalCommunicator>(gang, rank, spec_.shards(), death));
    }
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] { TakePart(*members[rank], *ranks[rank]); });
    }
    for (std::thread& thread : threads) thread.join();
    const int calls = ranks[0]->calls();
    entered.clear();
    for (const auto& member : members) {
      if (member->entered) entered.push_back(member->number);
    }
    for (int rank = size; rank-- > 0;) {
      const bool left = members[rank]->status.code() == StatusCode::kCancelled;
      if (left && !ranks[rank]->dead()) gone.push_back(std::move(members[rank]));
      if (left || ranks[rank]->dead()) members.erase(members.begin() + rank);
    }
    return calls;
  }

  // Of members that are through.
  std::string Weights(const Member& member) const {
    EXPECT_TRUE(member.status.ok()) << member.status.ToString();
    return member.weights;
  }
  void ExpectAll(const std::string& weights, const std::string& where) const {
    EXPECT_FALSE(members.empty());
    for (const auto& member : members) {
      EXPECT_TRUE(Weights(*member) == weights) << where << ": other bits";
      EXPECT_EQ(member->outcome.steps, steps_) << where;
    }
  }

  std::unique_ptr<CheckpointBoard> board = std::make_unique<CheckpointBoard>();
  std::vector<std::unique_ptr<Member>> members, gone;
  worker::StateSource first_state;  // parallel.zero; null: zeros
  std::vector<int> entered;         // whose Enter was OK in the newest group, the dead among them

 private:
  void TakePart(Member& member, collectives::Communicator& gang) {
    if (member.loop == nullptr) {
      member.run = std::make_unique<worker::TrainRun>(worker::TrainRun{.spec = spec_,
                                                                       .data = data_,
                                                                       .program = *member.program,
                                                                       .outer = member.outer.get(),
                                                                       .gang = gang,
                                                                       .last_step = steps_,
                                                                       .slice_bytes = 1000,
                                                                       .first_state = first_state});
      member.loop = std::make_unique<worker::TrainLoop>(*member.run, member.observer);
    }
    member.entered = false;
    member.status = [&]() -> Status {
      LEPTON_RETURN_IF_ERROR(member.loop->Enter(gang, member.has_state).status());
      member.has_state = member.entered = true;
      LEPTON_ASSIGN_OR_RETURN(member.outcome, member.loop->Run());
      member.weights.clear();
      return member.program->CollectWeights([&](const nn::ParameterView&,
                                                std::span<const float> values) {
        member.weights.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
        return Status::Ok();
      });
    }();
    // As a process that ends: its peers must not wait for it.
    if (!member.status.ok()) gang.Abort(Aborted("a rank is gone"));
  }

  bool Pictures() const { return spec::IsResnet(spec_.model.arch); }

  const spec::JobSpec spec_;
  const uint64_t steps_;
  int added_ = 0;
  worker::PreparedData data_;
};

}  // namespace lepton::testing
