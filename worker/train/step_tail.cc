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
  kTailDigests
};
// A digest is 64 bits in floats that hold 24, so that sums with zeros are exact.
constexpr int kDigestFloats = 3;
constexpr int kDigestBits = 24;

std::array<float, 2> SplitDouble(double value) {
  const float high = static_cast<float>(value);
  return {high, std::isfinite(high) ? static_cast<float>(value - double{high}) : 0.0f};
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

void WriteTail(std::span<float> tail, const SplitLoss& loss, const Wishes& wishes, int rank,
               uint64_t digest) {
  std::copy(loss.begin(), loss.end(), tail.begin());
  tail[kTailStop] = wishes.stop ? 1.0f : 0.0f;
  tail[kTailLeave] = wishes.leave ? 1.0f : 0.0f;
  tail[kTailRegroup] = wishes.regroup ? 1.0f : 0.0f;
  tail[kTailWritten] = wishes.written ? 1.0f : 0.0f;
  const std::span<float> digests = tail.subspan(kTailDigests);
  std::fill(digests.begin(), digests.end(), 0.0f);
  for (int i = 0; i < kDigestFloats; ++i) {
    const uint64_t bits = digest >> (i * kDigestBits) & ((1u << kDigestBits) - 1);
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
  const std::span<const float> digests = tail.subspan(kTailDigests);
  sums.digests.resize(digests.size() / kDigestFloats);
  for (size_t i = 0; i < digests.size(); ++i) {
    // Ranks of one version write whole numbers; a torn one must not be undefined behaviour.
    const float value = std::clamp(digests[i], 0.0f, static_cast<float>((1u << kDigestBits) - 1));
    sums.digests[i / kDigestFloats] |= static_cast<uint64_t>(value)
                                       << (i % kDigestFloats * kDigestBits);
  }
  return sums;
}

}  // namespace lepton::worker
