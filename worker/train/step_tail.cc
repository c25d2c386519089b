#include "worker/train/step_tail.h"

#include <algorithm>
#include <cmath>

namespace lepton::worker {
namespace {

enum TailPlace {
  kTailStop = std::tuple_size_v<SplitLoss>,
  kTailLeave,
  kTailRegroup,
  kTailWritten,
  kTailRows,
  kTailIds = kTailRows + 6,
  kTailDigests = kTailIds + 6
};
// A count is 64 bits in floats that hold 12 each, so that the sum of 4,096 ranks' is exact.
constexpr int kCountFloats = 6;
constexpr int kCountBits = 12;
static_assert(kTailRows + kCountFloats == kTailIds && kTailIds + kCountFloats == kTailDigests);
// A digest is 64 bits in floats that hold 24, so that sums with zeros are exact.
constexpr int kDigestFloats = 3;
constexpr int kDigestBits = 24;

std::array<float, 2> SplitDouble(double value) {
  const float high = static_cast<float>(value);
  return {high, std::isfinite(high) ? static_cast<float>(value - double{high}) : 0.0f};
}

void WriteCount(std::span<float> tail, uint64_t count) {
  for (int i = 0; i < kCountFloats; ++i) {
    tail[static_cast<size_t>(i)] =
        static_cast<float>(count >> (i * kCountBits) & ((1u << kCountBits) - 1));
  }
}

// A whole number that a float holds exactly. Ranks of one version write such; a torn one must not
// be undefined behaviour.
uint64_t WholeOf(float value) {
  constexpr auto kMost = static_cast<float>((1u << 24) - 1);
  return static_cast<uint64_t>(std::clamp(value, 0.0f, kMost));
}

uint64_t ReadCount(std::span<const float> tail) {
  uint64_t count = 0;
  for (int i = 0; i < kCountFloats; ++i) {
    count += WholeOf(tail[static_cast<size_t>(i)]) << (i * kCountBits);
  }
  return count;
}

}  // namespace

SplitLoss Split(const nn::LossSum& loss) {
  const auto [sum, sum_low] = SplitDouble(loss.sum);
  const auto [count, count_low] = SplitDouble(loss.count);
  return {sum, sum_low, count, count_low};
}

nn::LossSum Join(const SplitLoss& split) {
  return {double{split[0]} + double{split[1]}, double{split[2]} + double{split[3]}};
}

size_t TailSize(int ranks) {
  return kTailDigests + static_cast<size_t>(ranks) * kDigestFloats;
}

void WriteTail(std::span<float> tail, const SplitLoss& loss, int rank, const RankWord& word) {
  std::copy(loss.begin(), loss.end(), tail.begin());
  tail[kTailStop] = word.wishes.stop ? 1.0f : 0.0f;
  tail[kTailLeave] = word.wishes.leave ? 1.0f : 0.0f;
  tail[kTailRegroup] = word.wishes.regroup ? 1.0f : 0.0f;
  tail[kTailWritten] = word.wishes.written ? 1.0f : 0.0f;
  WriteCount(tail.subspan(kTailRows), word.samples.rows);
  WriteCount(tail.subspan(kTailIds), word.samples.ids);
  const std::span<float> digests = tail.subspan(kTailDigests);
  std::fill(digests.begin(), digests.end(), 0.0f);
  for (int i = 0; i < kDigestFloats; ++i) {
    const uint64_t bits = word.digest >> (i * kDigestBits) & ((1u << kDigestBits) - 1);
    digests[static_cast<size_t>(rank * kDigestFloats + i)] = static_cast<float>(bits);
  }
}

StepSums ReadTail(std::span<const float> tail) {
  StepSums sums;
  SplitLoss loss;
  std::copy_n(tail.begin(), loss.size(), loss.begin());
  sums.loss = Join(loss);
  sums.stop = static_cast<int>(tail[kTailStop]);
  sums.leave = static_cast<int>(tail[kTailLeave]);
  sums.regroup = static_cast<int>(tail[kTailRegroup]);
  sums.written = static_cast<int>(tail[kTailWritten]);
  sums.samples = {ReadCount(tail.subspan(kTailRows)), ReadCount(tail.subspan(kTailIds))};
  const std::span<const float> digests = tail.subspan(kTailDigests);
  sums.digests.resize(digests.size() / kDigestFloats);
  for (size_t i = 0; i < digests.size(); ++i) {
    sums.digests[i / kDigestFloats] |= WholeOf(digests[i]) << (i % kDigestFloats * kDigestBits);
  }
  return sums;
}

}  // namespace lepton::worker
