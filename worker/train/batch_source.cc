#include "worker/train/batch_source.h"

#include <glog/logging.h>

#include <algorithm>
#include <bit>

namespace lepton::worker {
namespace {

// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

constexpr int kRounds = 6;

}  // namespace

int64_t PermutedIndex(uint64_t seed, uint64_t epoch, int64_t count, int64_t index) {
  const int bits = std::max(2, static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1))));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const uint64_t key = Mix(Mix(seed) ^ epoch);
  uint64_t value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (Mix(key + Mix(right * kRounds + round)) & mask);
      left = right;
      right = mixed;
    }
    value = (left << half) | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

BatchSource::BatchSource(const DataPart& train, const Options& options)
    : train_(train),
      options_(options),
      batch_size_(std::min(options.batch_size, train.rows())),
      steps_per_epoch_((train.rows() + batch_size_ - 1) / batch_size_) {
  CHECK_GT(train.rows(), 0);
}

int64_t BatchSource::BatchRows(uint64_t step) const {
  const int64_t begin = static_cast<int64_t>(step % steps_per_epoch_) * batch_size_;
  return std::min(batch_size_, train_.rows() - begin);
}

MicroBatch BatchSource::Shard(uint64_t step, int shard) {
  const uint64_t epoch = step / steps_per_epoch_;
  const int64_t begin = static_cast<int64_t>(step % steps_per_epoch_) * batch_size_;
  const int64_t rows = BatchRows(step);
  const int64_t first = rows * shard / options_.shards;
  const int64_t last = rows * (shard + 1) / options_.shards;
  const int64_t features = options_.features, outputs = options_.outputs;

  x_.resize((last - first) * features);
  classes_.clear();
  values_.clear();
  teacher_.clear();
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = PermutedIndex(options_.seed, epoch, train_.rows(), begin + i);
    std::copy_n(&train_.x[row * features], features, &x_[(i - first) * features]);
    // Binary labels have both: the loss wants the values.
    if (!train_.values.empty()) {
      values_.push_back(train_.values[row]);
    } else {
      classes_.push_back(train_.classes[row]);
    }
    if (!options_.teacher_logits.empty()) {
      const auto logits = options_.teacher_logits.subspan(row * outputs, outputs);
      teacher_.insert(teacher_.end(), logits.begin(), logits.end());
    }
  }
  return {last - first, nn::Batch::Features(x_, features), {classes_, values_, teacher_}};
}

}  // namespace lepton::worker
