// Ranks that meet by their ports alone: large groups, many lanes, and one that cannot begin.
#include "collectives/transport/rendezvous.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "collectives/failure.h"
#include "collectives/transport/dial.h"
#include "collectives/transport/handshake.h"
#include "collectives/transport/member_address.h"
#include "collectives/transport/socket.h"
#include "collectives/transport/watcher.h"
#include "runtime/base/metrics.h"

namespace lepton::collectives {
namespace {

using std::chrono::milliseconds;

constexpr char kGroupToken[] = "0123456789abcdef";

double RefusedAsBusy() {
  return metrics::Counter("lepton_collectives_refused_total", "", {{"reason", "busy"}}).Value();
}

// Ranks that want so many lanes each, all on different hosts if `hosts`. Rank 0 comes last: the
// others are in the queue of its port. What each has once all have met.
std::vector<JoinedGroup> MeetAll(const std::vector<int>& lanes, TransportChoice transport,
                                 bool hosts) {
  const int ranks = static_cast<int>(lanes.size());
  std::vector<Listener> listeners;
  std::vector<MemberAddress> members;
  for (int rank = 0; rank < ranks; ++rank) {
    listeners.push_back(ListenOn("127.0.0.1").value());
    const Listener& own = listeners.back();
    members.push_back({"native", "", hosts ? "host" + std::to_string(rank) : "here", getpid(),
                       own.host, own.port, lanes[static_cast<size_t>(rank)]});
  }
  std::vector<Status> met(lanes.size());
  std::vector<JoinedGroup> groups(lanes.size());  // nobody leaves before all have met
  const auto join = [&](int rank) {
    const GroupSpec group{rank, ranks, 1, kGroupToken, std::vector<std::string>(lanes.size())};
    auto joined = Rendezvous(std::move(listeners[static_cast<size_t>(rank)]), group, members,
                             transport, {}, Deadline::In(std::chrono::seconds(60)));
    met[static_cast<size_t>(rank)] = joined.status();
    if (joined.ok()) groups[static_cast<size_t>(rank)] = *std::move(joined);
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < ranks; ++rank) threads.emplace_back(join, rank);
  std::this_thread::sleep_for(milliseconds(200));
  join(0);
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : met) EXPECT_TRUE(status.ok()) << status.ToString();
  return groups;
}

// Rank 2 tells rank 0 that it is ready, and dies before it tells rank 1: which cannot begin, while
// rank 0 has begun.
TEST(RendezvousTest, WhoCannotBeginTellsThoseWhoHaveWhoseFaultItIs) {
  std::vector<Listener> listeners;
  std::vector<MemberAddress> members;
  for (int rank = 0; rank < 3; ++rank) {
    listeners.push_back(ListenOn("127.0.0.1").value());
    const Listener& own = listeners.back();
    members.push_back({"native", "", "here", getpid(), own.host, own.port, 1});
  }
  const auto join = [&](int rank) {
    return Rendezvous(std::move(listeners[static_cast<size_t>(rank)]),
                      {rank, 3, 1, kGroupToken, std::vector<std::string>(3)}, members,
                      TransportChoice::kNone, {}, Deadline::In(std::chrono::seconds(20)));
  };
  Result<JoinedGroup> first = Internal("not run");
  Status second;
  std::thread zero([&] { first = join(0); });
  std::thread one([&] { second = join(1).status(); });
  const GroupKey key{kGroupToken, 1, 3, 2};
  std::vector<UniqueFd> control;
  for (int peer = 0; peer < 2; ++peer) {
    const MemberAddress& to = members[static_cast<size_t>(peer)];
    Dial dial({peer, to.host, to.port}, key, {ConnectionKind::kControl}, milliseconds(5000), 1);
    while (dial.state() == Dial::State::kConnecting || dial.state() == Dial::State::kTalking) {
      dial.Advance();
      std::this_thread::sleep_for(milliseconds(1));
    }
    ASSERT_EQ(dial.state(), Dial::State::kDone) << dial.status().ToString();
    control.push_back(dial.TakeSocket());
  }
  ASSERT_EQ(send(control[0].get(), "R", 1, MSG_NOSIGNAL), 1);
  zero.join();  // rank 1 has told it too, and waits
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  control[1].Reset();
  one.join();
  EXPECT_NE(second.message().find("rank 2 died"), std::string::npos) << second.ToString();
  const auto failure = Failure::Make(3).value();
  const auto watcher = Watcher::Start(*first, failure, {}, {});
  ASSERT_TRUE(watcher.ok());
  ASSERT_TRUE(failure->WaitRaised(std::chrono::seconds(5)));
  EXPECT_NE(failure->cause().message().find("rank 2 died"), std::string::npos)
      << failure->cause().ToString();
}

// False where there may not be so many.
bool AllowFiles(rlim_t files) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < files) return false;
  limit.rlim_cur = std::max(limit.rlim_cur, files);
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

TEST(RendezvousTest, ARankThatComesLastFindsAllOfALargeGroup) {
  if (!AllowFiles(6400)) GTEST_SKIP() << "needs a limit of 6400 open files";
  const double before = RefusedAsBusy();
  MeetAll(std::vector<int>(80), TransportChoice::kNone, false);
  EXPECT_EQ(RefusedAsBusy(), before);
}

TEST(RendezvousTest, TheLanesOfALargeGroupAreNoCrowdOfStrangers) {
  if (!AllowFiles(6400)) GTEST_SKIP() << "needs a limit of 6400 open files";
  const double before = RefusedAsBusy();
  const auto groups = MeetAll(std::vector<int>(20, 16), TransportChoice::kTcp, true);
  EXPECT_EQ(groups[7].data[3].size(), 16u);
  EXPECT_EQ(RefusedAsBusy(), before);
}

TEST(RendezvousTest, RanksThatWantDifferentNumbersOfLanesAgree) {
  for (const bool hosts : {true, false}) {
    const auto groups = MeetAll({4, 3, 8, 3}, TransportChoice::kTcp, hosts);
    for (size_t rank = 0; rank < groups.size(); ++rank) {
      for (size_t peer = 0; peer < groups.size(); ++peer) {
        if (peer == rank) continue;
        const std::vector<UniqueFd>& lanes = groups[rank].data[peer];
        EXPECT_EQ(lanes.size(), 3u) << "from " << rank << " to " << peer;
        for (const UniqueFd& lane : lanes) EXPECT_TRUE(lane.valid());
      }
    }
  }
}

}  // namespace
}  // namespace lepton::collectives
