// A training state in slices: whoever dies and comes, the bits are the undisturbed run's.
#include <gmock/gmock.h>

#include <iostream>

#include "tests/worker/train/zero_stages.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using testing::Death;
using ::testing::HasSubstr;
using testing::kAdam;
using testing::ZeroTraining;

class Zero : public testing::ZeroStages {};
INSTANTIATE_TEST_SUITE_P(Stages, Zero, ::testing::ValuesIn(testing::kZeroCases),
                         testing::ZeroCaseName);

// Wherever a rank dies, and whichever of the others still got the result of the call that it died
// in: no step is lost, nothing is read from a checkpoint, the bits are the undisturbed run's.
TEST_P(Zero, OneDeathAtAnyCallCostsNothing) {
  const std::string calm = Undisturbed();
  for (const int ranks : striped() ? std::vector{3, 4} : std::vector{2, 3, 4, 5}) {
    ZeroTraining counted = Training();
    for (int rank = 0; rank < ranks; ++rank) counted.Add();
    const int calls = counted.Group();
    ASSERT_GT(calls, 16);
    for (int call = 0; call < calls; ++call) {
      // The steps are alike.
      if (call > 14 && call < calls - 6) continue;
      const int victim = call % ranks;
      for (const unsigned lucky : {0u, ~0u, 0b1010u, 0b0101u}) {
        if (striped() && lucky != 0b1010u) continue;
        ZeroTraining training = Training();
        for (int rank = 0; rank < ranks; ++rank) training.Add();
        training.Group({call, victim, lucky});
        const std::string where =
            fmt::format("rank {} of {} dies in call {}, lucky {:b}", victim, ranks, call, lucky);
        ASSERT_EQ(training.members.size(), static_cast<size_t>(ranks - 1)) << where;
        training.Group();
        training.ExpectAll(calm, where);
      }
    }
  }
}

// The same where the pieces of a shard are several ranks'. Other ranks have them behind the death,
// and other numbers of rounds.
TEST_P(Zero, OneDeathAmongThePiecesOfAShardCostsNothing) {
  if (stage() < 2) return;
  for (const int pieces : striped() ? std::vector{3} : std::vector{2, 3}) {
    const std::string more = fmt::format("accumulate: {}, {}", pieces, kAdam);
    const std::string calm = Undisturbed(more);
    for (const int ranks : striped() ? std::vector{3} : std::vector{2, 3, 5}) {
      ZeroTraining counted = Training(more);
      for (int rank = 0; rank < ranks; ++rank) counted.Add();
      const int calls = counted.Group();
      // Two steps; several stripes have more calls in each, of which every fifth will do.
      for (int call = 0; call < 2 * calls / 5; call += striped() ? 5 : 1) {
        ZeroTraining training = Training(more);
        for (int rank = 0; rank < ranks; ++rank) training.Add();
        training.Group({call, call % ranks, call % 2 == 0 ? 0b01010u : 0b10101u});
        const std::string where = fmt::format("rank {} of {} dies in call {} of {}, {} pieces",
                                              call % ranks, ranks, call, calls, pieces);
        ASSERT_EQ(training.members.size(), static_cast<size_t>(ranks - 1)) << where;
        training.Group();
        training.ExpectAll(calm, where);
      }
    }
  }
}

// The sums of a slice's stripes go to the buddy by messages, in the middle of the backward pass.
TEST_P(Zero, OneDeathBetweenTwoMessagesToBuddiesCostsNothing) {
  if (stage() < 2) return;
  const std::string calm = Undisturbed();
  for (const int ranks : {2, 3, 4}) {
    for (int message = 0; message < (striped() ? 20 : 6); message += striped() ? 3 : 1) {
      ZeroTraining training = Training();
      for (int rank = 0; rank < ranks; ++rank) training.Add();
      training.Group({.victim = message % ranks, .message = message});
      const std::string where =
          fmt::format("rank {} of {} dies at message {}", message % ranks, ranks, message);
      ASSERT_EQ(training.members.size(), static_cast<size_t>(ranks - 1)) << where;
      training.Group();
      training.ExpectAll(calm, where);
    }
  }
}

// A second rank dies while the others recover from the first one's death.
TEST_P(Zero, ADeathInTheRecoveryCostsNothingUnlessTheBuddyWasTheFirst) {
  const std::string calm = Undisturbed();
  constexpr int kRanks = 4;
  int lost = 0, fine = 0;
  for (const int first_call : striped() ? std::vector{6} : std::vector{3, 4, 5, 6, 7, 8, 9}) {
    for (int second = 0; second < kRanks - 1; ++second) {
      for (int at = 0; at < 14; ++at) {
        ZeroTraining training = Training();
        for (int rank = 0; rank < kRanks; ++rank) training.Add();
        constexpr int kFirst = 1;
        training.Group({first_call, kFirst, 0b0100u});
        ASSERT_EQ(training.members.size(), 3u);
        const bool buddy = (second < kFirst ? second : second + 1) == BuddyOf(kFirst, kRanks);
        Death death{.call = at < 8 ? at : -1, .victim = second, .lucky = 0b010u};
        if (at >= 8) death.message = at - 8;
        training.Group(death);
        const std::string where =
            fmt::format("call {}, then rank {} of 3 at {}", first_call, second, at);
        if (training.members.size() == 2) training.Group();
        if (training.members[0]->status.code() == StatusCode::kInternal) {
          EXPECT_TRUE(buddy) << where;
          for (const auto& member : training.members) {
            EXPECT_THAT(member->status.message(), HasSubstr("going on from the last checkpoint"));
          }
          ++lost;
        } else {
          training.ExpectAll(calm, where);
          ++fine;
        }
      }
    }
  }
  std::cout << fine << " runs went on, " << lost << " lost both buddies\n";
  if (striped()) return;
  EXPECT_GT(lost, 0) << "both of a pair within a recovery";
  EXPECT_GT(fine, 2 * lost);
}

TEST_P(Zero, BothBuddiesAtOnceAreALossThatAllNotice) {
  ZeroTraining training = Training();
  for (int rank = 0; rank < 4; ++rank) training.Add();
  training.members[0]->observer.regroup_at = 3;
  training.Group();
  ASSERT_EQ(training.members.size(), 4u);
  EXPECT_EQ(training.members[0]->observer.committed, 3u);
  training.members.erase(training.members.begin() + 3);
  training.members.erase(training.members.begin() + 1);
  training.Group();
  for (const auto& member : training.members) {
    EXPECT_EQ(member->status.code(), StatusCode::kInternal) << member->status.ToString();
    EXPECT_THAT(member->status.message(), HasSubstr("both buddies: going on from the last"));
  }
}

TEST_P(Zero, OneOfEachPairMayGoAtOnce) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  for (int rank = 0; rank < 6; ++rank) training.Add();
  training.members[0]->observer.regroup_at = 3;
  training.Group();
  for (const int rank : {5, 1, 0}) training.members.erase(training.members.begin() + rank);
  training.Group();
  training.ExpectAll(calm, "three of six");
}

TEST_P(Zero, JoinersTakeTheirSlicesFromThoseWhoHaveThem) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  training.Add();
  for (uint64_t step = 1; step <= 4; ++step) {
    for (const auto& member : training.members) member->observer.regroup_at = step;
    training.Group();
    training.Add(/*has_state=*/false);
  }
  training.Group();
  EXPECT_EQ(training.members.size(), 5u);
  training.ExpectAll(calm, "one to five");
}

// Statistics are nobody's slice.
TEST_P(Zero, JoinersGetTheStatisticsToo) {
  if (striped()) return;
  const std::string more =
      std::string(kAdam) +
      ", model: {arch: resnet18, stem: small, stem_width: 8, widths: [8, 16], depths: [1, 1]}";
  const std::string calm = Undisturbed(more);
  ZeroTraining training = Training(more);
  for (int rank = 0; rank < 3; ++rank) training.Add();
  training.members[0]->observer.regroup_at = 2;
  training.Group();
  training.Add(/*has_state=*/false);
  training.Group();
  training.ExpectAll(calm, "a joiner of a model with statistics");
}

}  // namespace
}  // namespace lepton::worker
