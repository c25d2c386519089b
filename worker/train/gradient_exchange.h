// A step's gradients: from the micro-batches of a rank to the sum over all ranks, in buckets that
// travel while the backward pass goes on.
//
// A bucket is a run of parameters, from the last one of the model to the first: the order in which
// a backward pass finishes them. During the last micro-batch of a rank, a bucket whose gradients
// are all final is folded with what the micro-batches before left (tree_fold.h) and handed to the
// communicator's progress thread. Buckets go out in the order of their numbers on every rank,
// whenever each becomes ready. The last bucket goes when the backward pass is over; the statistics
// and the caller's tail travel with it, and what the step before took, while the size of buckets is
// still measured.
//
// Sums are taken element by element in one fixed tree, so neither the buckets nor the overlap show
// in the bits. That holds for compressed gradients too: with kBFloat16 every shard's gradient and
// every partial sum is rounded to bfloat16, on one rank as on many; kLowRank is low_rank.h. What
// remains whole (statistics, the tail, vectors beside kLowRank's matrices) is f32.
//
// Threads: one caller. The program outlives it, and so does each step's communicator the step:
// after an error of Reduce or before a communicator goes, call Abandon.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/clock.h"
#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"
#include "runtime/tensor/dtype.h"
#include "worker/train/bucket_tuner.h"
#include "worker/train/low_rank.h"
#include "worker/train/tree_fold.h"

namespace lepton::worker {

class GradientExchange {
 public:
  enum class Compression { kNone, kBFloat16, kLowRank };
  struct Options {
    // A bucket closes with the parameter that fills it. 0: measured (bucket_tuner.h) where buckets
    // travel beside the backward pass.
    int64_t bucket_bytes = 0;
    bool overlap = true;  // else all buckets wait for the end of the backward pass
    Compression compression = Compression::kNone;
    int rank = 4;       // kLowRank
    uint64_t seed = 0;  // kLowRank
  };
  // As the spec says.
  static Options OptionsOf(const spec::JobSpec& spec);

  GradientExchange(nn::TrainingProgram& program, Options options);
  ~GradientExchange();

  // All ranks, before the first step in a group: what compression remembers begins anew. `mine` of
  // all `shards` are this rank's.
  void EnterGroup(int mine, int shards);

  // A step begins in which this rank computes shards * pieces micro-batches; for each of them, in
  // order, run the program's ForwardBackward (or zero its gradients) and call After.
  void Begin(collectives::Communicator& gang, int shards, int pieces);
  void After();
  // Ends the step: program.gradients() and `tail` become the sums over all ranks. kAborted and the
  // like as of Communicator::AllReduce.
  Status Reduce(std::span<float> tail);
  // Waits for what is under way: it fails fast once the group was aborted.
  void Abandon();

  // Whether the size of buckets stays from the next step on.
  bool settled() const { return !tuner_ || tuner_->done(); }
  // In the newest step.
  int64_t bucket_bytes() const { return bucket_bytes_; }
  int buckets() const { return static_cast<int>(buckets_.size()); }
  // What a rank contributes to a step's sums, in bytes: what compression is about.
  int64_t payload_bytes() const;
  // What it holds beside the program's gradients.
  uint64_t bytes() const;

 private:
  struct Bucket {
    int64_t begin = 0, end = 0;  // elements
    size_t first = 0, last = 0;  // parameters, both included, statistics not
    size_t parameters = 0;
    int64_t payload = 0, payload_end = 0;  // kLowRank: its place in payload_
  };
  bool measures() const { return tuner_ && !tuner_->done() && gang_->size() > 1; }
  void MakeBuckets(int64_t bucket_bytes);
  void LayPayload();
  void OnReady(size_t parameter);
  void SendReadyBuckets();
  void Send(const Bucket& bucket);
  void Fold(int64_t begin, int64_t end);
  void Pack(const Bucket& bucket);
  void Unpack(const Bucket& bucket);
  void AddShard(std::span<const float> gradients);
  void FinishPieces(std::span<float> part, int64_t begin) const;
  Status SumAll(std::span<float> tail);
  Status SumBehind(std::span<const std::span<float>> parts);
  Status Decompress();
  void Tune();
  bool compressed() const { return options_.compression != Compression::kNone; }

  nn::TrainingProgram& program_;
  const Options options_;
  std::optional<BucketTuner> tuner_;
  MonotonicTime begun_{};     // this step
  float seconds_ = 0;         // that the step before took; behind a step's sums, all ranks'
  int64_t bucket_bytes_ = 0;  // that buckets_ are made for
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // by parameter; not of statistics, for which nobody waits
  int64_t trained_ = 0;            // elements; statistics lie behind

  collectives::Communicator* gang_ = nullptr;
  int micro_batches_ = 0, pieces_ = 1, next_ = 0;  // of this step
  TreeFold fold_, statistics_fold_;
  std::vector<float> pieces_sum_;
  std::vector<size_t> missing_;  // by bucket: parameters that are not final
  size_t sent_ = 0;              // buckets that are folded and on their way
  bool behind_ = false;          // the backward pass
  std::vector<collectives::HandlePtr> handles_;
  std::vector<float> last_;  // what goes behind the backward pass, tail included
  // Compressed:
  std::vector<BF16> halves_;  // as the gradients
  std::optional<LowRank> low_rank_;
  std::vector<float> payload_;  // by bucket: left factors, and what is not compressed
};

}  // namespace lepton::worker
