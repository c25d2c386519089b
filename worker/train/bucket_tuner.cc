#include "worker/train/bucket_tuner.h"

#include <algorithm>

namespace lepton::worker {
namespace {

// With each size. What is told behind the first is of the size before, what is told behind the
// second of a step in which queues and caches were another's.
constexpr int kSteps = 5;
constexpr int kCounted = 3;

}  // namespace

void BucketTuner::Restart() {
  upwards_ = true;
  best_bytes_ = 0;
  best_seconds_ = std::numeric_limits<double>::infinity();
  Try(kFirst);
  done_ = model_bytes_ <= kLeast;
}

void BucketTuner::Try(int64_t bytes) {
  bytes_ = bytes;
  steps_ = 0;
  seconds_ = std::numeric_limits<double>::infinity();
}

void BucketTuner::Took(double seconds) {
  if (done_) return;
  if (++steps_ > kSteps - kCounted) seconds_ = std::min(seconds_, seconds);
  if (steps_ == kSteps) Next();
}

void BucketTuner::Next() {
  const bool first = best_bytes_ == 0;
  const bool better = first || seconds_ < kGain * best_seconds_;
  if (better) {
    best_bytes_ = bytes_;
    best_seconds_ = seconds_;
  }
  if (upwards_) {
    // A bucket that has everything cannot grow.
    if (better && bytes_ < model_bytes_) return Try(bytes_ * kFactor);
    if (best_bytes_ == kFirst) {
      upwards_ = false;
      return Try(kFirst / kFactor);
    }
  } else if (better && bytes_ > kLeast) {
    return Try(bytes_ / kFactor);
  }
  bytes_ = best_bytes_;
  done_ = true;
}

}  // namespace lepton::worker
