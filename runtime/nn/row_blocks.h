// How a forward pass cuts a batch: into blocks of few sizes, powers of two, so that there are few
// plans and their memory is bounded. The last rows are padded, or run in smaller blocks that fit
// better: a block costs its rows, padded or not, and the reading of all weights.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace lepton::nn {

struct RowCosts {
  int64_t row = 1;    // the rows of a product that one of the batch becomes: a text's tokens
  int64_t block = 0;  // the rows of a product that take as long as reading the weights once
};

// Of the blocks that `left` rows run in, none larger than a power of two `most`.
constexpr int64_t BlocksCost(int64_t left, int64_t most, const RowCosts& costs);

// The rows of the next block of `left` > 0; more than `left` where it is padded. Ties are padded.
constexpr int64_t NextBlockRows(int64_t left, int64_t most, const RowCosts& costs) {
  if (left >= most) return most;
  const auto padded = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(left)));
  if (padded == left) return left;
  const int64_t part = padded / 2;
  const int64_t split = part * costs.row + costs.block + BlocksCost(left - part, most, costs);
  return padded * costs.row + costs.block <= split ? padded : part;
}

constexpr int64_t BlocksCost(int64_t left, int64_t most, const RowCosts& costs) {
  int64_t cost = 0;
  while (left > 0) {
    const int64_t rows = NextBlockRows(left, most, costs);
    cost += rows * costs.row + costs.block;
    left -= rows;
  }
  return cost;
}

}  // namespace lepton::nn
