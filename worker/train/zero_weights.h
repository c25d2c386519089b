// Weights that no rank holds as a whole (parallel.zero: 3), for the time in which the program reads
// them: a bucket's parts come from their slices' owners to all ranks in one all-gather, in the
// middle of a pass, while the program computes with the bucket before it. All ranks make the same
// passes at the same time, so that they ask for the same buckets in the same order; a rank without
// work goes through the pass without computing (TrainingProgram::PassThrough). Each gathering says
// which elements it is of, so that ranks that are not where the others are end with an error and
// not with wrong numbers. Bytes received by a rank of n, with W of weights: W * (n-1)/n for each
// time that a bucket comes; with two ranks or one none, since both hold everything. Threads: one
// caller. The state and the program outlive it, and each group's communicator its use.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/nn/training_program.h"
#include "worker/train/zero_state.h"

namespace lepton::worker {

class ZeroWeights final : public nn::WeightSource {
 public:
  // What is read together is of at least so many bytes.
  ZeroWeights(const ZeroState& state, int64_t bucket_bytes)
      : state_(state), bucket_bytes_(bucket_bytes) {}
  ~ZeroWeights() override;
  ZeroWeights(const ZeroWeights&) = delete;
  ZeroWeights& operator=(const ZeroWeights&) = delete;

  // The program lets go of its weights: from here on they come from the groups that are entered.
  void Serve(nn::TrainingProgram& program);
  bool serves() const { return program_ != nullptr; }
  void EnterGroup(collectives::Communicator& gang) {
    Abandon();
    gang_ = &gang;
  }
  // Waits for what is under way: it fails fast once the group was aborted.
  void Abandon();

  // Errors are the communicator's; kInternal when ranks ask for different elements.
  Status Bring(int64_t begin, std::span<float> to) override;
  void Expect(int64_t begin, int64_t size) override;
  Status BeginForward() override;
  Result<bool> OthersForward() override;

  uint64_t bytes() const { return (staging_.capacity() + gathered_.capacity()) * sizeof(float); }

 private:
  void Start(const Elements& range);
  Status Finish(const Elements& range, float* to);
  Result<bool> AnyOf(bool mine);

  const ZeroState& state_;
  const int64_t bucket_bytes_;
  nn::TrainingProgram* program_ = nullptr;
  collectives::Communicator* gang_ = nullptr;
  Elements under_way_;  // of handle_
  size_t each_ = 0;     // numbers that a rank gives
  std::vector<float> staging_, gathered_;
  collectives::HandlePtr handle_;
};

}  // namespace lepton::worker
