// What a task does with the coordinator's orders, in the order in which they come.
#include "worker/gang_membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "collectives/transport/member_address.h"
#include "tests/support/silent_port.h"

namespace lepton::worker {
namespace {

using testing::ElementsAre;

wire::TaskGroup Members(uint64_t epoch, const std::string& address) {
  wire::TaskGroup group;
  group.set_epoch(epoch);
  group.add_members()->set_address(address);
  return group;
}

wire::TaskGroup LeaveFor(uint64_t epoch) {
  wire::TaskGroup group;
  group.set_epoch(epoch);
  group.set_at_once(true);
  return group;
}

// An epoch is made and over before the task looks: the coordinator waits for a fresh endpoint, and
// would kill the task for not giving one. Found by protocol_model_test.cc.
TEST(GangMembership, AnEpochThatIsOverBeforeTheTaskLooksIsLeft) {
  wire::StartTask start;
  start.set_group_token("0123456789abcdef");
  spec::JobSpec spec;
  std::vector<uint64_t> left;
  GangMembership* membership = nullptr;
  GangMembership tested(start, spec, "127.0.0.1", [&](const wire::TaskUp& up) {
    left.push_back(up.endpoint().left_epoch());
    if (left.size() == 1) {
      membership->OnGroup(Members(1, up.endpoint().address()));
      membership->OnGroup(LeaveFor(2));
    } else if (left.size() == 2) {
      membership->OnGroup(Members(2, up.endpoint().address()));
    } else {
      membership->OnStop("the test fails");
    }
  });
  membership = &tested;
  const auto group = tested.Next("");
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  EXPECT_EQ(group->epoch, 2u);
  EXPECT_THAT(left, ElementsAre(0, 1));
}

TEST(GangMembership, AJoinerSaysWhichMembersItCannotReach) {
  wire::StartTask start;
  spec::JobSpec spec;
  spec.elastic.recovery_budget = std::chrono::milliseconds(400);
  const collectives::Backend* backend = collectives::FindBackend("native").value();
  const auto there = backend->Listen("127.0.0.1").value();
  for (const uint32_t seat : {3u, 5u}) {
    wire::Member& member = *start.add_probe();
    member.set_seat(seat);
    member.set_address(there->address());
  }
  const testing_support::SilentPort cut;
  auto behind = collectives::MemberAddress::Decode(there->address(), "native").value();
  behind.port = cut.port();
  start.mutable_probe(1)->set_address(behind.Encode());
  wire::TaskEndpoint told;
  GangMembership* membership = nullptr;
  GangMembership tested(start, spec, "127.0.0.1", [&](const wire::TaskUp& up) {
    told = up.endpoint();
    membership->OnStop("enough");
  });
  membership = &tested;
  EXPECT_EQ(tested.Next("").status().code(), StatusCode::kCancelled);
  ASSERT_EQ(told.unreachable_size(), 1);
  EXPECT_EQ(told.unreachable(0).seat(), 5u);
}

}  // namespace
}  // namespace lepton::worker
