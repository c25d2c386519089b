// Gradients of which each rank keeps its slice and its buddy's (parallel.zero: 2). Nobody has a
// whole gradient: the program gives each parameter's as soon as it is final
// (TrainingProgram::Options::keeps_gradients), and it is packed at once for the owners of its
// parts.
//
// The V shards' K pieces are counted through, and number m, piece m mod K of shard m / K, is rank
// m mod n's, in round m / n. So they come to a slice's owner in their order, a round at a time: it
// adds pieces to the sum of their shard, and shards in their tree, with few partial sums
// (tree_fold.h has the tree). A stripe of the model (zero_layout.h) goes out when all of its
// gradients are there, in one all-to-all, while the backward pass goes on; or in a reduce-scatter,
// where the tree over a round's shards is that over the ranks. In the last round owners give their
// sums to their buddies, stripe by stripe. Losses, statistics and the ranks' wishes come from all
// to all, piece by piece.
// Bytes sent by a rank of n, with G of gradient: G/n * (n-1) for each of the VK/n rounds, and G/n
// to its buddy. Ranks that join and lack weights compute nothing: n are the others, the first ones,
// in what is said of micro-batches and rounds.
//
// The bits are those of GradientExchange without compression.
// Threads: one caller. The program and each step's communicator outlive it; after an error, or
// before a communicator goes, call Abandon.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/nn/training_program.h"
#include "worker/data/batch_source.h"
#include "worker/train/step_tail.h"
#include "worker/train/tree_fold.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {

class ZeroGradients {
 public:
  // `visits`: the program's weights come in the middle of its passes (stage 3), so that each rank
  // must go through every pass of the others, in their order.
  ZeroGradients(nn::TrainingProgram& program, int shards, int pieces, bool visits = false);
  ~ZeroGradients();

  // What is this rank's where so many ranks compute, in order.
  static std::vector<MicroBatch> MicroBatchesOf(int rank, int ranks, int shards, int pieces);

  // A step, in the group that `layout` is of and in which the first `workers` ranks compute: Begin;
  // for each of this rank's micro-batches run the program's ForwardBackward and call After with its
  // loss, or not `computed` for one without rows; Reduce. Then Of has the sums of what this rank
  // holds, and the program's gradients() those of the statistics, until the next Begin.
  void Begin(collectives::Communicator& gang, const ZeroLayout& layout, int workers);
  void After(const nn::LossSum& loss, bool computed = true);
  Result<StepSums> Reduce(const RankWord& word);
  std::span<const float> Of(const Elements& part) const;
  void Abandon();

  // Held, staging and partial sums of a step included.
  uint64_t bytes() const;

 private:
  // A loss's sum and count, to the bit, in what an all-gather of floats carries.
  using LossBits = std::array<float, 4>;
  // What a stripe's all-to-all sends or receives: a part for each rank, all of one size. Of a
  // reduce-scatter one part is received.
  using Staging = std::vector<float>;
  struct Partial {
    int64_t shards = 0;
    std::vector<float> sum;
  };
  struct Stripe {
    int64_t missing = 0;               // elements, in this round
    Staging filling;                   // of this round; empty before its first gradient
    std::vector<Partial> partials;     // of this rank's part; the last may lack pieces of a shard
    std::vector<float> own, mirrored;  // the sums
    std::vector<std::vector<float>> spare;  // memory for any of these
    void Recycle();
  };
  struct InFlight {
    int stripe = 0;
    int64_t round = 0;
    Staging sent, received;
    collectives::HandlePtr handle;
  };
  void OnReady(size_t parameter);
  void Pack(int64_t begin, std::span<const float> values);
  void PassWithoutRows();
  Staging MakeStaging(int stripe, int parts);
  bool Summed(int64_t round) const;
  void BeginRound();
  void SendReady();
  Status WaitForOldest();
  void Fold(InFlight& done);
  void Mirror(int number);
  Status WaitForMirrors();
  Result<StepSums> ShareRest(const RankWord& word);
  // Of memory that is there the smallest that is large enough, since parts differ by a block; or
  // what takes the largest one's place.
  static std::vector<float> TakeFrom(std::vector<std::vector<float>>& spare, int64_t size);
  int64_t PartSize(int stripe) const;  // the largest of the stripe's parts
  int64_t micro_batches() const { return int64_t{shards_} * pieces_; }
  int64_t rounds() const { return (micro_batches() + workers_ - 1) / workers_; }

  nn::TrainingProgram& program_;
  const int shards_, pieces_;
  const bool visits_;
  const int64_t trained_;
  bool sums_in_rounds_ = false;  // the group's tree over ranks is that over a full round's shards
  bool blank_ = false;           // the pass computes nothing: its gradients are zeros
  std::vector<float> zeros_;
  collectives::Communicator* gang_ = nullptr;
  ZeroLayout layout_;
  int rank_ = 0, workers_ = 1;
  int64_t round_ = 0;
  int next_ = 0;  // stripes behind it have gone out in this round
  Status failed_;
  std::vector<Stripe> stripes_;
  std::vector<InFlight> in_flight_;              // the oldest first
  std::vector<collectives::HandlePtr> mirrors_;  // stripes' sums between this rank and its buddies
  std::vector<Staging> spare_;
  std::vector<float> rest_;  // of this rank's micro-batches: statistics, and the loss's bits
};

}  // namespace lepton::worker
