// Gradients of which each rank keeps its slice and its buddy's (parallel.zero: 2). Nobody has a
// whole gradient: the program gives each parameter's as soon as it is final
// (TrainingProgram::Options::keeps_gradients), and it is packed at once for the owners of its
// parts.
//
// Logical shard l is rank l mod n's, in round l / n. So the shards come to a slice's owner in their
// order, a round at a time, and it adds them in their tree with few partial sums (tree_fold.h has
// the tree). A stripe of the model (zero_layout.h) goes out when all of its gradients are there, in
// one all-to-all, while the backward pass goes on. Behind the last round owners give their sums to
// their buddies. Losses, statistics and the ranks' wishes come from all to all, shard by shard.
// Bytes sent by a rank of n, with G of gradient and V shards: G/n * (n-1) for each of the V/n
// rounds, and G/n to its buddy.
//
// The bits are those of GradientExchange without compression.
// Threads: one caller. The program and each step's communicator outlive it; after an error, or
// before a communicator goes, call Abandon.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/nn/training_program.h"
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

  // This rank's shards in a group.
  static std::vector<int> ShardsOf(int rank, int ranks, int shards);

  // A step, in the group that `layout` is of: Begin; for each of this rank's shards and pieces run
  // the program's ForwardBackward and call After, or After(false) for a piece without rows; at a
  // shard's end EndShard with its loss; Reduce. Then Of has the sums of what this rank holds, and
  // the program's gradients() those of the statistics, until the next Begin.
  void Begin(collectives::Communicator& gang, const ZeroLayout& layout);
  void After(bool computed = true);
  void EndShard(const nn::LossSum& loss);
  Result<StepSums> Reduce(const Wishes& wishes, uint64_t digest);
  std::span<const float> Of(const Elements& part) const;
  void Abandon();

  // Held now, staging included.
  uint64_t bytes() const;

 private:
  // What a stripe's all-to-all sends or receives: a part for each rank, all of one size.
  using Staging = std::vector<float>;
  struct Partial {
    int64_t leaves = 0;
    std::vector<float> sum;
  };
  struct Stripe {
    int64_t missing = 0;               // elements, in this round
    Staging filling;                   // of this round; empty before its first gradient
    std::vector<Partial> partials;     // of this rank's part, complete subtrees
    std::vector<float> own, mirrored;  // the sums
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
  Staging MakeStaging(int stripe);
  void BeginRound();
  void SendReady();
  Status WaitForOldest();
  void Fold(InFlight& done);
  Status Mirror();
  Result<StepSums> ShareRest(const Wishes& wishes, uint64_t digest);
  int64_t PartSize(int stripe) const;  // the largest of the stripe's parts

  nn::TrainingProgram& program_;
  const int shards_, pieces_;
  const bool visits_;
  const int64_t trained_;
  bool blank_ = false;  // the pass computes nothing: its gradients are zeros
  std::vector<float> zeros_;
  collectives::Communicator* gang_ = nullptr;
  ZeroLayout layout_;
  int rank_ = 0;
  int piece_ = 0;
  int64_t round_ = 0;
  int next_ = 0;  // stripes behind it have gone out in this round
  Status failed_;
  std::vector<Stripe> stripes_;
  std::vector<InFlight> in_flight_;  // the oldest first
  std::vector<Staging> spare_;
  std::vector<float> pieces_sum_;
  std::vector<float> rest_;        // of this rank's shards: statistics and loss
  std::vector<float> statistics_;  // of the shard that is being computed
};

}  // namespace lepton::worker
