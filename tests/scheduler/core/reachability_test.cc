// Who can go on together when some cannot reach each other.
#include "scheduler/core/reachability.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <random>

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

TEST(LargestReachable, KeepsAllWhenNothingIsCut) {
  EXPECT_THAT(LargestReachable({0, 1, 2}, {}), ElementsAre(0, 1, 2));
}

TEST(LargestReachable, OfAPairTheMemberOfLowerRankStays) {
  EXPECT_THAT(LargestReachable({0, 1, 2}, {{1, 2}}), ElementsAre(0, 1));
  EXPECT_THAT(LargestReachable({4, 2, 7}, {{2, 4}}), ElementsAre(4, 7)) << "rank, not seat";
}

TEST(LargestReachable, TheOneThatNobodyReachesGoesWhateverItsRank) {
  EXPECT_THAT(LargestReachable({0, 1, 2, 3}, {{0, 1}, {0, 2}, {0, 3}}), ElementsAre(1, 2, 3));
}

TEST(LargestReachable, OfTwoHalvesTheLargerGoesOnAndOfEqualOnesTheFirst) {
  EXPECT_THAT(LargestReachable({0, 1, 2, 3, 4}, {{0, 2}, {0, 3}, {0, 4}, {1, 2}, {1, 3}, {1, 4}}),
              ElementsAre(2, 3, 4));
  EXPECT_THAT(LargestReachable({0, 1, 2, 3}, {{0, 2}, {0, 3}, {1, 2}, {1, 3}}), ElementsAre(0, 1));
}

// Against trying every set.
TEST(LargestReachable, IsTheLargestOfAnyCuts) {
  std::mt19937 dice(7);
  for (int round = 0; round < 300; ++round) {
    const uint32_t size = 1 + dice() % 9;
    std::vector<uint32_t> members;
    std::set<SeatPair> cuts;
    for (uint32_t i = 0; i < size; ++i) members.push_back(i);
    for (uint32_t a = 0; a < size; ++a) {
      for (uint32_t b = a + 1; b < size; ++b) {
        if (dice() % 3 == 0) cuts.emplace(a, b);
      }
    }
    std::vector<uint32_t> best;
    for (uint32_t set = 0; set < (1u << size); ++set) {
      const bool possible = std::none_of(cuts.begin(), cuts.end(), [&](const SeatPair& cut) {
        return (set >> cut.first & 1) != 0 && (set >> cut.second & 1) != 0;
      });
      std::vector<uint32_t> here;
      for (uint32_t i = 0; i < size; ++i) {
        if ((set >> i & 1) != 0) here.push_back(i);
      }
      // Of sets of one size the one whose members come first.
      if (possible && (here.size() > best.size() || (here.size() == best.size() && here < best))) {
        best = here;
      }
    }
    EXPECT_EQ(LargestReachable(members, cuts), best) << round;
  }
}

TEST(LargestReachable, ABisectedGangOfManyIsSolvedAtOnce) {
  std::vector<uint32_t> members;
  std::set<SeatPair> cuts;
  for (uint32_t i = 0; i < 64; ++i) members.push_back(i);
  for (uint32_t a = 0; a < 30; ++a) {
    for (uint32_t b = 30; b < 64; ++b) cuts.emplace(a, b);
  }
  EXPECT_THAT(LargestReachable(members, cuts), SizeIs(34));
}

}  // namespace
}  // namespace lepton::scheduler
