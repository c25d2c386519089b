// The size of a gang's gradient buckets, by measurement: small ones leave little to wait for behind
// the backward pass, large ones cost fewer hand-overs and fewer of the network's latencies. The
// steps themselves are what is measured. A few are taken with kFirst, then with four times as much,
// and so on as long as steps get shorter; if the first increase does not help, downwards.
//
// Every rank has its own tuner and makes the same calls with equal arguments: the time of a step is
// summed over the ranks in the next one's reduction (gradient_exchange.h). So all ranks have the
// same size in the same step.
// Threads: one caller.
#pragma once

#include <cstdint>
#include <limits>

namespace lepton::worker {

class BucketTuner {
 public:
  static constexpr int64_t kFirst = int64_t{1} << 20;
  static constexpr int64_t kLeast = int64_t{1} << 18;
  static constexpr int64_t kFactor = 4;
  // What must be gained by a change, so that noise does not decide.
  static constexpr double kGain = 0.98;

  // `model_bytes`: of all gradients. One bucket has all of them where they are no more than kLeast,
  // and nothing is measured.
  explicit BucketTuner(int64_t model_bytes) : model_bytes_(model_bytes) { Restart(); }
  // A new group: another network, other ranks.
  void Restart();
  // For the step that begins.
  int64_t bytes() const { return bytes_; }
  bool done() const { return done_; }
  // Behind each step until it is done. `seconds`: of the step before it, summed over the ranks.
  void Took(double seconds);
  // What a step took with the best size, in that sum; 0: not measured.
  double best_seconds() const { return best_bytes_ > 0 ? best_seconds_ : 0; }

 private:
  void Next();
  void Try(int64_t bytes);

  const int64_t model_bytes_;
  int64_t bytes_ = kFirst;
  bool done_ = false, upwards_ = true;
  int steps_ = 0;                                             // with bytes_
  double seconds_ = std::numeric_limits<double>::infinity();  // the shortest of them
  int64_t best_bytes_ = 0;                                    // 0: none yet
  double best_seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace lepton::worker
