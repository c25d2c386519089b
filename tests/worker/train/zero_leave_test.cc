// A training state in slices: ranks that are told to leave go when others hold what they held, and
// not before.
#include <gmock/gmock.h>

#include "tests/worker/train/zero_stages.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using testing::Death;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::SizeIs;
using testing::ZeroTraining;

class ZeroLeave : public testing::ZeroStages {
 protected:
  static constexpr uint64_t kMet = 2;  // the group is over behind this step

  // Four ranks that have left their group behind a step, some of which were told to leave since.
  // By now they wait for the next one.
  static ZeroTraining Between(unsigned leavers) {
    ZeroTraining training = Training();
    for (int rank = 0; rank < 4; ++rank) {
      training.Add().observer.leave_behind = (leavers >> rank & 1) != 0 ? kMet : 1000;
    }
    training.members[0]->observer.regroup_at = kMet;
    training.Group();
    EXPECT_EQ(training.members.size(), 4u);
    return training;
  }
  static std::vector<uint64_t> Steps(const ZeroTraining& training) {
    std::vector<uint64_t> steps;
    for (const auto& member : training.members) steps.push_back(member->observer.committed);
    return steps;
  }
};
INSTANTIATE_TEST_SUITE_P(Stages, ZeroLeave, ::testing::ValuesIn(testing::kZeroCases),
                         testing::ZeroCaseName);

TEST_P(ZeroLeave, BuddiesThatLeaveTogetherHandOver) {
  const std::string calm = Undisturbed();
  for (const unsigned leavers : {0b0001u, 0b0101u, 0b1010u, 0b0111u, 0b1110u}) {
    ZeroTraining training = Training();
    size_t left = 0;
    for (int rank = 0; rank < 4; ++rank) {
      if ((leavers >> rank & 1) == 0) {
        training.Add();
        continue;
      }
      training.Add().observer.leave_at = 2;
      ++left;
    }
    training.Group();
    EXPECT_EQ(training.members.size(), 4 - left);
    training.Group();
    training.ExpectAll(calm, fmt::format("leave: {:b}", leavers));
  }
}

constexpr unsigned kSomeLeave[] = {0b0001u, 0b0101u, 0b1010u, 0b0011u, 0b0111u, 0b1110u};

// One, both buddies, one of each pair, all but one: none has to wait for another step.
TEST_P(ZeroLeave, WhoIsToldBetweenTwoGroupsHandsOverAsTheyMeet) {
  const std::string calm = Undisturbed();
  for (const unsigned leavers : kSomeLeave) {
    ZeroTraining training = Between(leavers);
    training.Group();
    const std::string where = fmt::format("leave: {:b}", leavers);
    EXPECT_EQ(training.members.size(), 4u - static_cast<size_t>(__builtin_popcount(leavers)))
        << where;
    EXPECT_THAT(Steps(training), Each(kMet)) << where;
    for (const auto& member : training.members) {
      EXPECT_EQ(member->status.code(), StatusCode::kAborted) << member->status.ToString();
      EXPECT_TRUE(member->loop->parting().planned);
      EXPECT_THAT(member->loop->parting().left, SizeIs(training.gone.size()));
    }
    training.Group();
    training.ExpectAll(calm, where);
  }
}

// The buddy is told while the first one leaves, and a third while that one does.
TEST_P(ZeroLeave, OneAfterAnotherAtEachBoundary) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  for (int rank = 0; rank < 4; ++rank) training.Add();
  training.members[0]->observer.leave_at = kMet;
  training.members[2]->observer.leave_behind = kMet;  // the buddy
  training.Group();
  ASSERT_EQ(training.members.size(), 3u);
  training.Group();
  ASSERT_EQ(training.members.size(), 2u);
  training.members[0]->observer.leave_behind = kMet;
  training.Group();
  ASSERT_EQ(training.members.size(), 1u);
  EXPECT_THAT(Steps(training), ElementsAre(kMet));
  training.Group();
  training.ExpectAll(calm, "one after another");
}

// Whoever of them dies, stays or leaves, and wherever in the meeting: those that have not left by
// then meet again, and nothing is lost.
TEST_P(ZeroLeave, ADeathInTheHandoverCostsNothing) {
  const std::string calm = Undisturbed();
  int deaths = 0;
  for (const unsigned leavers : {0b0001u, 0b0101u}) {
    for (int victim = 0; victim < 4; ++victim) {
      for (int at = 0; at < 12; ++at) {
        if (striped() && at % 3 != 0) continue;
        ZeroTraining training = Between(leavers);
        Death death{.call = at < 6 ? at : -1, .victim = victim, .lucky = 0b0110u};
        if (at >= 6) death.message = at - 6;
        training.Group(death);
        const std::string where =
            fmt::format("leave: {:b}, rank {} dies at {}", leavers, victim, at);
        deaths += training.members.size() + training.gone.size() < 4;
        for (int more = 0; more < 3; ++more) {
          if (training.members.empty() || training.members[0]->status.ok()) break;
          training.Group();
        }
        training.ExpectAll(calm, where);
      }
    }
  }
  EXPECT_GT(deaths, 10);
}

// Nobody is left who could go on, so what none of them has alone is written by all together; a
// death meanwhile is one more meeting.
TEST_P(ZeroLeave, WhenAllAreToldTheyWriteACheckpointFirst) {
  for (const int victim : {-1, 0, 3}) {
    ZeroTraining training = Between(0b1111u);
    const int64_t elements = TrainedElements(training.members[0]->program->parameters());
    if (victim >= 0) {
      training.Group({.call = 4, .victim = victim, .lucky = 0});
      ASSERT_EQ(training.members.size(), 3u);
    }
    training.Group();
    EXPECT_TRUE(training.members.empty());
    for (size_t rank = 0; rank < training.gone.size(); ++rank) {
      const testing::Member& member = *training.gone[rank];
      EXPECT_EQ(member.status.code(), StatusCode::kCancelled) << member.status.ToString();
      EXPECT_EQ(member.observer.committed, kMet);
      EXPECT_TRUE(member.loop->parting().saved);
      EXPECT_THAT(member.observer.checkpoints, Each(kMet));
      // Again, if the death came so late that not all knew of it.
      const bool writes = rank + 1 == training.gone.size();  // the first, taken out last
      EXPECT_EQ(!member.observer.checkpoints.empty(), writes);
    }
    const auto& state = training.board->whole.at(kMet).at("optimizer");
    EXPECT_EQ(state.size(), 2 * static_cast<size_t>(elements));
    EXPECT_EQ(training.board->most_slices, training.gone.size());
  }
}

}  // namespace
}  // namespace lepton::worker
