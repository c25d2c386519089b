// Who holds which slice.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

TEST(ZeroLayout, EverySliceHasAnOwnerAndABuddyAndEveryRankTwoSlices) {
  constexpr int64_t kElements = (int64_t{1} << 14) * 40 + 77;
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const int stripes : {1, 3}) {
      const ZeroLayout layout(kElements, ranks, stripes);
      int64_t at = 0;
      for (int stripe = 0; stripe < stripes; ++stripe) {
        EXPECT_EQ(layout.stripe(stripe).begin, at);
        for (int position = 0; position < ranks; ++position) {
          const int rank = layout.OwnerAt(position, stripe);
          EXPECT_EQ(layout.part(rank, stripe).begin, at);
          EXPECT_EQ(at % (1 << 14), 0) << "whole blocks of the norm";
          at = layout.part(rank, stripe).end;
        }
        EXPECT_EQ(layout.stripe(stripe).end, at);
      }
      EXPECT_EQ(at, kElements);
      std::map<int, int> holders;
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(layout.HeldBy(rank).size(), static_cast<size_t>(stripes * std::min(2, ranks)));
        for (int slice = 0; slice < ranks; ++slice) holders[slice] += layout.Holds(rank, slice, 0);
      }
      for (const auto& [slice, count] : holders) EXPECT_EQ(count, std::min(2, ranks)) << slice;
    }
    // Pairs, so that one may go in each; of an odd number three are a ring.
    int paired = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ(MirroredBy(BuddyOf(rank, ranks), ranks), rank);
      EXPECT_EQ(BuddyOf(rank, ranks) == rank, ranks == 1);
      paired += BuddyOf(BuddyOf(rank, ranks), ranks) == rank;
    }
    EXPECT_EQ(paired, ranks % 2 == 0 || ranks == 1 ? ranks : ranks - 3) << ranks;
  }
}

TEST(ZeroLayout, StripesAreOfSomeSizeAndLeaveEachRankSomeBlocks) {
  constexpr int64_t kMillion = 1'000'000;
  EXPECT_EQ(StripesFor(1000, 1 << 20, 4), 1);
  EXPECT_EQ(StripesFor(kMillion, 1 << 20, 2), 3) << "of at least a MiB";
  EXPECT_EQ(StripesFor(kMillion, 1 << 10, 20), 3) << "62 blocks, for twenty ranks";
  EXPECT_EQ(StripesFor(1000 * kMillion, 1 << 20, 64), 64);
}

TEST(ZeroLayout, AModelOfFewBlocksLeavesRanksWithoutASlice) {
  const ZeroLayout layout(100, 4);
  int64_t elements = 0;
  for (int rank = 0; rank < 4; ++rank) elements += layout.slice_size(rank);
  EXPECT_EQ(elements, 100);
}

}  // namespace
}  // namespace lepton::worker
