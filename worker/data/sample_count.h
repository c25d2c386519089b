// Which training examples were used, in two numbers that ranks and steps add: each example once an
// epoch makes OfEpochs, whoever used it and in whatever order, and an example that was lost or used
// twice does not. Modulo 2^64.
// Threads: a value.
#pragma once

#include <cstdint>
#include <span>

namespace lepton::worker {

struct SampleCount {
  uint64_t rows = 0;
  uint64_t ids = 0;  // the sum of their numbers, from 0 to the training part's rows - 1

  static SampleCount Of(std::span<const int64_t> rows) {
    SampleCount count{rows.size(), 0};
    for (const int64_t row : rows) count.ids += static_cast<uint64_t>(row);
    return count;
  }
  // Each of `rows` examples once in each of so many epochs.
  static SampleCount OfEpochs(uint64_t epochs, int64_t rows) {
    const auto n = static_cast<uint64_t>(rows);
    // One of the two factors is even.
    const uint64_t once = n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n;
    return {epochs * n, epochs * once};
  }
  SampleCount& operator+=(const SampleCount& more) {
    rows += more.rows;
    ids += more.ids;
    return *this;
  }
  bool operator==(const SampleCount&) const = default;
};

}  // namespace lepton::worker
