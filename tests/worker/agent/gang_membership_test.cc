// What a task does with the coordinator's orders, in the order in which they come.
#include "worker/gang_membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <future>
#include <thread>
#include <vector>

#include "collectives/transport/member_address.h"
#include "runtime/base/file.h"
#include "storage/objects/object_store.h"
#include "tests/support/silent_port.h"
#include "worker/process_context.h"

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
  const auto group = tested.Next("", {});
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
  EXPECT_EQ(tested.Next("", {}).status().code(), StatusCode::kCancelled);
  ASSERT_EQ(told.unreachable_size(), 1);
  EXPECT_EQ(told.unreachable(0).seat(), 5u);
}

// Behind the last step, say, in which the leader stores the model: its disk is slow, but it moves.
TEST(GangMembership, WhoStoresIsWaitedForAndSaysThatItIsBusy) {
  TempFolder folder;
  const auto store = storage::ObjectStore::Open(folder.path()).value();
  const auto object = store->NewObject().value();
  spec::JobSpec spec;
  spec.elastic.recovery_budget = std::chrono::milliseconds(400);
  wire::StartTask start;
  start.set_group_token("0123456789abcdef");
  std::array<std::promise<std::string>, 2> told;
  std::array<std::atomic<int>, 2> busy{};
  std::array<std::unique_ptr<GangMembership>, 2> ranks;
  for (size_t rank = 0; rank < 2; ++rank) {
    ranks[rank] = std::make_unique<GangMembership>(
        start, spec, "127.0.0.1", [&, rank](const wire::TaskUp& up) {
          if (up.has_endpoint()) told[rank].set_value(up.endpoint().address());
          busy[rank] += up.has_busy();
        });
  }
  std::array<std::future<Result<Membership::Group>>, 2> joins;
  for (size_t rank = 0; rank < 2; ++rank) {
    joins[rank] = std::async(std::launch::async, [&, rank] { return ranks[rank]->Next("", {}); });
  }
  const std::string addresses[] = {told[0].get_future().get(), told[1].get_future().get()};
  std::array<std::shared_ptr<collectives::Communicator>, 2> gangs;
  for (size_t rank = 0; rank < 2; ++rank) {
    wire::TaskGroup members;
    members.set_epoch(1);
    members.set_rank(static_cast<uint32_t>(rank));
    for (const std::string& address : addresses) members.add_members()->set_address(address);
    ranks[rank]->OnGroup(members);
  }
  for (size_t rank = 0; rank < 2; ++rank) {
    const auto joined = joins[rank].get();
    ASSERT_TRUE(joined.ok()) << joined.status().ToString();
    gangs[rank] = joined->gang;
  }
  std::future<Status> waits = std::async(std::launch::async, [&] { return gangs[1]->Barrier(); });
  for (int i = 0; i < 75; ++i) {  // more than 7 budgets
    std::this_thread::sleep_for(spec.elastic.recovery_budget / 10);
    ASSERT_TRUE(object->Append("a").ok());
  }
  const Status met = gangs[0]->Barrier();
  EXPECT_TRUE(met.ok()) << met.ToString();
  const Status waited = waits.get();
  EXPECT_TRUE(waited.ok()) << waited.ToString();

  ranks[0]->OnGroup(LeaveFor(2));
  ranks[0]->Watch();
  const int first = busy[0];
  std::this_thread::sleep_for(spec.elastic.recovery_budget);
  ranks[0]->Watch();
  EXPECT_EQ(busy[0], first) << "nothing has moved";
  ASSERT_TRUE(object->Append("a").ok());
  ranks[0]->Watch();
  EXPECT_EQ(busy[0], first + 1);
}

TEST(GangMembership, AGangThatStartsAgainLimitsNobodyWhoMovesEither) {
  spec::JobSpec spec;
  for (const int budget_s : {2, 10, 60}) {
    spec.elastic.recovery_budget = std::chrono::seconds(budget_s);
    const collectives::Options options = GangOptions(spec);
    EXPECT_GT(options.link_timeout, Duration{}) << "the watcher decides how long to wait";
    EXPECT_GE(options.timeout, std::chrono::seconds(30));
    EXPECT_GE(options.timeout, 3 * spec.elastic.recovery_budget);
    EXPECT_LT(2 * options.link_timeout, options.timeout);
  }
}

// A rank that was in a group and is told to leave before it has met the next one, whose members
// are known. It takes part in that: perhaps it alone has the state, or some slices. But not where
// it cannot reach them.
struct LeavingCase {
  const char* name;
  int zero;
  bool at_once, goes;
};

class GangMembershipLeaving : public testing::TestWithParam<LeavingCase> {};

TEST_P(GangMembershipLeaving, BetweenTwoGroups) {
  wire::StartTask start;
  start.set_group_token("0123456789abcdef");
  spec::JobSpec spec;
  spec.parallel.zero = GetParam().zero;
  std::vector<bool> planned;
  std::vector<uint32_t> left;
  GangMembership* membership = nullptr;
  GangMembership tested(start, spec, "127.0.0.1", [&](const wire::TaskUp& up) {
    planned.push_back(up.endpoint().planned());
    left.insert(left.end(), up.endpoint().left().begin(), up.endpoint().left().end());
    const uint64_t epoch = up.endpoint().left_epoch();
    if (epoch == 1) membership->OnLeave("drained", GetParam().at_once);
    wire::TaskGroup members = Members(epoch + 1, up.endpoint().address());
    members.mutable_members(0)->set_seat(7);
    membership->OnGroup(members);
  });
  membership = &tested;
  ASSERT_TRUE(tested.Next("", {}).ok());
  const auto second = tested.Next("a rank left", {.planned = true, .left = {0}});
  EXPECT_THAT(planned, ElementsAre(false, true));
  EXPECT_THAT(left, ElementsAre(7)) << "by its seat, not its rank";
  EXPECT_TRUE(tested.leave_requested());
  if (GetParam().goes) {
    EXPECT_EQ(second.status().code(), StatusCode::kCancelled) << second.status().ToString();
  } else {
    ASSERT_TRUE(second.ok()) << second.status().ToString();
    EXPECT_EQ(second->epoch, 2u);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GangMembershipLeaving,
                         testing::Values(LeavingCase{"WithoutSlices", 0, false, false},
                                         LeavingCase{"WithoutSlicesBehindACut", 0, true, true},
                                         LeavingCase{"SlicesOfStage1", 1, false, false},
                                         LeavingCase{"SlicesOfStage2", 2, false, false},
                                         LeavingCase{"SlicesBehindACut", 2, true, true}),
                         [](const auto& info) { return info.param.name; });

// With slices it would wait until there is one.
TEST(GangMembership, WhoIsToldToLeaveWhileThereIsNoGroupGoes) {
  wire::StartTask start;
  start.set_group_token("0123456789abcdef");
  GangMembership* membership = nullptr;
  GangMembership tested(start, {}, "127.0.0.1", [&](const wire::TaskUp& up) {
    if (up.endpoint().left_epoch() == 1) return membership->OnLeave("drained", false);
    membership->OnGroup(Members(1, up.endpoint().address()));
  });
  membership = &tested;
  ASSERT_TRUE(tested.Next("", {}).ok());
  EXPECT_EQ(tested.Next("rank 1 died", {}).status().code(), StatusCode::kCancelled);
}

// It holds nothing yet.
TEST(GangMembership, WhoIsToldToLeaveBeforeItsFirstGroupGoes) {
  wire::StartTask start;
  spec::JobSpec spec;
  spec.parallel.zero = 2;
  GangMembership* membership = nullptr;
  GangMembership tested(start, spec, "127.0.0.1",
                        [&](const wire::TaskUp&) { membership->OnLeave("drained", false); });
  membership = &tested;
  EXPECT_EQ(tested.Next("", {}).status().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace lepton::worker
