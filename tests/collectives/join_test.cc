// Who gets into a group: members that know the token and the epoch, in time, and nobody else.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "collectives/backends/native_backend.h"
#include "collectives/transport/handshake.h"
#include "collectives/transport/member_address.h"
#include "collectives/transport/rendezvous.h"
#include "collectives/transport/socket.h"
#include "runtime/base/metrics.h"
#include "tests/support/silent_port.h"

namespace lepton::collectives {
namespace {

using std::chrono::milliseconds;
using testing_support::SilentPort;

constexpr char kToken[] = "0123456789abcdef";

double Refusals(const char* reason) {
  return metrics::Counter("lepton_collectives_refused_total", "", {{"reason", reason}}).Value();
}

struct Member {
  std::unique_ptr<Endpoint> endpoint;
  std::string address;
};

class JoinTest : public testing::Test {
 protected:
  Member NewMember() {
    auto endpoint = backend_.Listen("127.0.0.1");
    EXPECT_TRUE(endpoint.ok()) << endpoint.status().ToString();
    std::string address = (*endpoint)->address();
    return {std::move(*endpoint), address};
  }

  Result<std::unique_ptr<Communicator>> Join(Member member, int rank,
                                             std::vector<std::string> members,
                                             Duration timeout = milliseconds(5000),
                                             const std::string& token = kToken,
                                             uint64_t epoch = 1) {
    GroupSpec spec{rank, static_cast<int>(members.size()), epoch, token, members};
    return backend_.Join(std::move(member.endpoint), spec, {}, Deadline::In(timeout));
  }

  NativeBackend backend_;
};

TEST_F(JoinTest, WrongTokenIsRefusedCountedAndTheMissingRankIsNamed) {
  Member a = NewMember(), b = NewMember();
  std::vector<std::string> members{a.address, b.address};
  double before = Refusals("token");
  Status refused;
  std::thread stranger([&] {
    refused = Join(std::move(b), 1, members, milliseconds(5000), "fedcba9876543210").status();
  });
  Status waited = Join(std::move(a), 0, members, milliseconds(400)).status();
  stranger.join();
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied) << refused.ToString();
  EXPECT_NE(refused.message().find("token"), std::string::npos);
  EXPECT_EQ(waited.code(), StatusCode::kDeadlineExceeded) << waited.ToString();
  EXPECT_NE(waited.message().find("rank 1"), std::string::npos);
  EXPECT_GE(Refusals("token"), before + 1);
}

TEST_F(JoinTest, WrongEpochIsRefusedAndCounted) {
  Member a = NewMember(), b = NewMember();
  std::vector<std::string> members{a.address, b.address};
  double before = Refusals("epoch");
  Status refused;
  std::thread old(
      [&] { refused = Join(std::move(b), 1, members, milliseconds(5000), kToken, 2).status(); });
  Status waited = Join(std::move(a), 0, members, milliseconds(300)).status();
  old.join();
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied) << refused.ToString();
  EXPECT_NE(refused.message().find("epoch"), std::string::npos);
  EXPECT_EQ(waited.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Refusals("epoch"), before + 1);
}

TEST_F(JoinTest, LateComerIsRefusedWhileTheGroupGoesOn) {
  Member a = NewMember(), b = NewMember(), late = NewMember();
  std::vector<std::string> members{a.address, b.address};
  Result<std::unique_ptr<Communicator>> first = Internal("not run");
  std::thread other([&] { first = Join(std::move(a), 0, members); });
  auto second = Join(std::move(b), 1, members);
  other.join();
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  double before = Refusals("late");
  std::vector<std::string> impostor_members{members[0], late.address};
  Status refused = Join(std::move(late), 1, impostor_members).status();
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied) << refused.ToString();
  EXPECT_NE(refused.message().find("late"), std::string::npos);
  EXPECT_EQ(Refusals("late"), before + 1);
  Status on_first;
  std::thread barrier([&] { on_first = (*first)->Barrier(); });
  EXPECT_TRUE((*second)->Barrier().ok());
  barrier.join();
  EXPECT_TRUE(on_first.ok());
}

// The member as seen across a cut link.
std::string Behind(const SilentPort& cut, const std::string& address) {
  MemberAddress member = MemberAddress::Decode(address, "native").value();
  member.host = "127.0.0.1";
  member.port = cut.port();
  return member.Encode();
}

TEST_F(JoinTest, BothEndsOfACutAreFoundInTimeAndTheOthersBlameNobody) {
  constexpr Duration kLinkTimeout = milliseconds(600);
  const SilentPort cut;
  std::vector<Member> ranks;
  for (int rank = 0; rank < 4; ++rank) ranks.push_back(NewMember());
  std::vector<std::string> members;
  for (const Member& rank : ranks) members.push_back(rank.address);
  std::vector<std::set<int>> cannot_reach(4);
  std::vector<Status> results(4);
  const MonotonicTime begin = RealClock().Now();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<std::string> seen = members;
      if (rank == 1) seen[3] = Behind(cut, members[3]);
      if (rank == 3) seen[1] = Behind(cut, members[1]);
      GroupSpec spec{rank, 4, 1, kToken, seen};
      Options options;
      options.link_timeout = kLinkTimeout;
      options.unreachable = [&, rank](int peer, const std::string& why) {
        EXPECT_NE(why, "");
        cannot_reach[static_cast<size_t>(rank)].insert(peer);
      };
      results[static_cast<size_t>(rank)] =
          backend_
              .Join(std::move(ranks[static_cast<size_t>(rank)].endpoint), spec, options,
                    Deadline::In(milliseconds(10'000)))
              .status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(RealClock().Now() - begin, 2 * kLinkTimeout);
  EXPECT_EQ(cannot_reach[1], std::set<int>{3});
  EXPECT_EQ(cannot_reach[3], std::set<int>{1});
  EXPECT_TRUE(cannot_reach[0].empty() && cannot_reach[2].empty());
  for (const Status& status : results) EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_NE(results[3].message().find("rank 1 cannot be reached"), std::string::npos)
      << results[3].ToString();
}

TEST_F(JoinTest, APeerThatComesLateIsNotUnreachable) {
  Member a = NewMember(), b = NewMember();
  const std::vector<std::string> members{a.address, b.address};
  Options options;
  options.link_timeout = milliseconds(100);
  bool cut = false;
  options.unreachable = [&](int, const std::string&) { cut = true; };
  Status first, second;
  std::thread early([&] {
    first = backend_
                .Join(std::move(a.endpoint), {0, 2, 1, kToken, members}, options,
                      Deadline::In(milliseconds(5000)))
                .status();
  });
  std::this_thread::sleep_for(milliseconds(400));
  second = backend_
               .Join(std::move(b.endpoint), {1, 2, 1, kToken, members}, options,
                     Deadline::In(milliseconds(5000)))
               .status();
  early.join();
  EXPECT_TRUE(first.ok() && second.ok()) << first.ToString() << " " << second.ToString();
  EXPECT_FALSE(cut);
}

TEST_F(JoinTest, AProbeTellsWhoCannotBeReachedFromWhoRefuses) {
  Member here = NewMember();
  std::string refuses = NewMember().address;  // nobody listens there any more
  const SilentPort cut;
  EXPECT_EQ(FindUnreachable({here.address, Behind(cut, here.address), refuses}, milliseconds(300)),
            std::vector<size_t>{1});
}

TEST_F(JoinTest, SilentAndBabblingStrangersHoldUpNobody) {
  Member a = NewMember(), b = NewMember();
  std::vector<std::string> members{a.address, b.address};
  MemberAddress target = MemberAddress::Decode(a.address, "native").value();
  double before = Refusals("malformed");
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 3; ++i) {
    auto fd = ConnectTo(target.host, target.port, Deadline::In(milliseconds(1000)));
    ASSERT_TRUE(fd.ok());
    strangers.push_back(std::move(*fd));
  }
  std::string garbage(200, 'x');
  ASSERT_GT(send(strangers[0].get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
  Result<std::unique_ptr<Communicator>> first = Internal("not run");
  std::thread other([&] { first = Join(std::move(a), 0, members); });
  auto second = Join(std::move(b), 1, members);
  other.join();
  EXPECT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_GE(Refusals("malformed"), before + 1);
}

// They are all in the queue of its port when it comes.
TEST(RendezvousTest, ARankThatComesLastFindsAllOfALargeGroup) {
  constexpr int kRanks = 80;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < kRanks * kRanks) GTEST_SKIP() << "needs a limit of 6400 open files";
  files.rlim_cur = std::max<rlim_t>(files.rlim_cur, kRanks * kRanks);
  setrlimit(RLIMIT_NOFILE, &files);
  std::vector<Listener> listeners;
  std::vector<MemberAddress> members;
  for (int rank = 0; rank < kRanks; ++rank) {
    listeners.push_back(ListenOn("127.0.0.1").value());
    const Listener& own = listeners.back();
    members.push_back({"native", "", "here", getpid(), own.host, own.port});
  }
  std::vector<Status> met(kRanks);
  std::vector<JoinedGroup> groups(kRanks);  // nobody leaves before all have met
  const auto join = [&](int rank) {
    const GroupSpec group{rank, kRanks, 1, kToken, std::vector<std::string>(kRanks)};
    auto joined = Rendezvous(std::move(listeners[static_cast<size_t>(rank)]), group, members,
                             TransportChoice::kNone, {}, Deadline::In(std::chrono::seconds(60)));
    met[static_cast<size_t>(rank)] = joined.status();
    if (joined.ok()) groups[static_cast<size_t>(rank)] = *std::move(joined);
  };
  const double before = Refusals("busy");
  std::vector<std::thread> threads;
  for (int rank = 1; rank < kRanks; ++rank) threads.emplace_back(join, rank);
  std::this_thread::sleep_for(milliseconds(200));
  join(0);
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : met) ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(Refusals("busy"), before);
}

// They came behind it, and it is the first that is sent away.
TEST_F(JoinTest, WhoIsRefusedForACrowdOfStrangersTriesAgain) {
  Member a = NewMember(), b = NewMember();
  const std::vector<std::string> members{a.address, b.address};
  const MemberAddress target = MemberAddress::Decode(a.address, "native").value();
  Result<std::unique_ptr<Communicator>> second = Internal("not run");
  std::thread early([&] { second = Join(std::move(b), 1, members); });
  std::this_thread::sleep_for(milliseconds(200));
  std::vector<UniqueFd> crowd;
  for (int i = 0; i < 200; ++i) {
    auto fd = ConnectTo(target.host, target.port, Deadline::In(milliseconds(1000)));
    ASSERT_TRUE(fd.ok());
    crowd.push_back(std::move(*fd));
  }
  const auto first = Join(std::move(a), 0, members);
  early.join();
  EXPECT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_TRUE(second.ok()) << second.status().ToString();
}

TEST_F(JoinTest, ThePortOfARankThatIsAlwaysBusyIsNamed) {
  const Listener crowded = ListenOn("127.0.0.1").value();
  Member b = NewMember();
  const std::vector<std::string> members{
      MemberAddress{"native", "", "another host", getpid(), crowded.host, crowded.port}.Encode(),
      b.address};
  Status refused;
  std::atomic<bool> over = false;
  std::thread joiner([&] {
    refused = Join(std::move(b), 1, members, milliseconds(500)).status();
    over = true;
  });
  const GroupKey key{kToken, 1, 2, 0};
  int tries = 0;
  while (!over) {
    pollfd waiting{crowded.socket.get(), POLLIN, 0};
    if (poll(&waiting, 1, 20) <= 0) continue;
    AcceptorHandshake dialer(AcceptFrom(crowded.socket), key,
                             [](int, ConnectionKind) { return Verdict::kAccepted; });
    dialer.Refuse(Verdict::kBusy);
    ++tries;
  }
  joiner.join();
  EXPECT_GT(tries, 1);
  EXPECT_EQ(refused.code(), StatusCode::kDeadlineExceeded) << refused.ToString();
  EXPECT_NE(refused.message().find("rank 0 refused us: busy: "), std::string::npos)
      << refused.ToString();
  EXPECT_NE(refused.message().find("keep other programs"), std::string::npos);
}

TEST_F(JoinTest, TokenNeverTravels) {
  Listener fake = ListenOn("127.0.0.1").value();
  Member b = NewMember();
  std::string fake_address =
      MemberAddress{"native", "", "another host", getpid(), fake.host, fake.port}.Encode();
  std::vector<std::string> members{fake_address, b.address};
  Status refused;
  std::thread joiner([&] { refused = Join(std::move(b), 1, members).status(); });
  pollfd waiting{fake.socket.get(), POLLIN, 0};
  ASSERT_EQ(poll(&waiting, 1, 5000), 1);
  UniqueFd fd = AcceptFrom(fake.socket);
  Deadline deadline = Deadline::In(milliseconds(5000));
  std::string seen(sizeof(Hello), '\0');
  EXPECT_TRUE(ReceiveAll(fd.get(), seen.data(), seen.size(), deadline).ok());
  Challenge challenge{};  // an acceptor that does not know the token can only guess the proof
  std::memcpy(challenge.magic, seen.data(), sizeof(challenge.magic));
  challenge.verdict = static_cast<uint32_t>(Verdict::kAccepted);
  EXPECT_TRUE(SendAll(fd.get(), &challenge, sizeof(challenge), deadline).ok());
  joiner.join();
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied) << refused.ToString();
  char more;
  EXPECT_FALSE(ReceiveAll(fd.get(), &more, 1, deadline).ok()) << "it went on talking";
  EXPECT_EQ(seen.find(kToken), std::string::npos);
}

TEST_F(JoinTest, DeadMemberOnThisHostIsNoticedLongBeforeTheDeadline) {
  Member a = NewMember();
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  MemberAddress dead = MemberAddress::Decode(a.address, "native").value();
  dead.pid = child;
  std::vector<std::string> members{a.address, dead.Encode()};
  MonotonicTime start = RealClock().Now();
  Status status = Join(std::move(a), 0, members, std::chrono::seconds(30)).status();
  EXPECT_EQ(status.code(), StatusCode::kAborted) << status.ToString();
  EXPECT_NE(status.message().find("rank 1"), std::string::npos);
  EXPECT_LT(RealClock().Now() - start, std::chrono::seconds(5));
}

TEST_F(JoinTest, BadSpecsAreRefusedNamingTheField) {
  Member a = NewMember(), b = NewMember();
  std::string address = a.address;
  EXPECT_NE(Join(NewMember(), 0, {address, b.address}).status().message().find("members[0]"),
            std::string::npos);
  EXPECT_NE(Join(NewMember(), 0, {"nonsense", "x"}).status().message().find("members"),
            std::string::npos);
  Status short_token =
      Join(std::move(a), 0, {address, b.address}, milliseconds(100), "short").status();
  EXPECT_EQ(short_token.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(short_token.message().find("token"), std::string::npos);
  EXPECT_EQ(backend_.Listen("not-an-address").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(JoinTest, GroupOfOneNeedsNoPeers) {
  Member a = NewMember();
  std::vector<std::string> members{a.address};
  auto alone = Join(std::move(a), 0, members);
  ASSERT_TRUE(alone.ok()) << alone.status().ToString();
  float in = 2, out = 0;
  EXPECT_TRUE((*alone)->AllReduce(&in, &out, 1, DataType::kFloat32, ReduceOp::kMean).ok());
  EXPECT_EQ(out, 2.0f);
  (*alone)->Abort(Aborted("enough"));
  EXPECT_EQ((*alone)->Barrier().message(), "enough");
}

TEST(BackendListTest, NamesAreFoundAndUnknownOnesListTheChoices) {
  EXPECT_EQ(FindBackend("auto").value()->name(), "native");
  EXPECT_EQ(FindBackend("native").value()->name(), "native");
  Status unknown = FindBackend("carrier-pigeon").status();
  EXPECT_EQ(unknown.code(), StatusCode::kInvalidArgument);
  for (const Backend* backend : Backends()) {
    EXPECT_NE(unknown.message().find(backend->name()), std::string::npos);
  }
}

}  // namespace
}  // namespace lepton::collectives
