// Who gets into a group: members that know the token and the epoch, in time, and nobody else.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "collectives/backends/native_backend.h"
#include "collectives/transport/dial.h"
#include "collectives/transport/handshake.h"
#include "collectives/transport/member_address.h"
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
  MemberAddress of_another_backend =
      MemberAddress::Decode(Behind(cut, here.address), "native").value();
  of_another_backend.backend = "nccl";
  EXPECT_EQ(FindUnreachable(
                {here.address, Behind(cut, here.address), refuses, of_another_backend.Encode()},
                milliseconds(300)),
            (std::vector<size_t>{1, 3}));
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

// A lane of rank 1 to rank 0: what rank 0 says to it.
Status DialLane(const std::string& address, const std::string& token, uint64_t epoch,
                uint16_t lane) {
  const MemberAddress target = MemberAddress::Decode(address, "native").value();
  const GroupKey key{token, epoch, 2, 1};
  Dial dial({0, target.host, target.port}, key, {ConnectionKind::kData, lane}, milliseconds(5000),
            1);
  while (dial.state() == Dial::State::kConnecting || dial.state() == Dial::State::kTalking) {
    dial.Advance();
    std::this_thread::sleep_for(milliseconds(1));
  }
  return dial.status();
}

TEST_F(JoinTest, EachLaneIsProvedAndWhoseIsNoneOfThisGroupsIsRefused) {
  const NativeBackend backend({.transport = TransportChoice::kTcp, .lanes = 4});
  auto endpoint = backend.Listen("127.0.0.1").value();
  const std::string here = endpoint->address(),
                    there = backend.Listen("127.0.0.1").value()->address();
  std::thread member([&] {
    const GroupSpec spec{0, 2, 7, kToken, {here, there}};
    (void)backend.Join(std::move(endpoint), spec, {}, Deadline::In(milliseconds(2000)));
  });
  const auto refused = [&](const char* reason, const std::string& token, uint64_t epoch,
                           uint16_t lane) {
    const double before = Refusals(reason);
    const Status status = DialLane(here, token, epoch, lane);
    EXPECT_EQ(status.code(), StatusCode::kPermissionDenied) << reason << ": " << status.ToString();
    for (int i = 0; i < 100 && Refusals(reason) == before; ++i) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    EXPECT_EQ(Refusals(reason), before + 1) << reason;
  };
  refused("token", "fedcba9876543210", 7, 3);
  refused("epoch", kToken, 6, 3);
  refused("group", kToken, 7, 4);
  EXPECT_EQ(DialLane(here, kToken, 7, 3).ToString(), "OK");
  refused("duplicate", kToken, 7, 3);
  EXPECT_EQ(DialLane(here, kToken, 7, 2).ToString(), "OK") << "another lane is not the same again";
  member.join();
}

TEST(LaneTest, OneThatComesLateIsRefusedWhileTheGroupGoesOn) {
  const NativeBackend backend({.transport = TransportChoice::kTcp, .lanes = 2});
  auto near = backend.Listen("127.0.0.1").value(), far = backend.Listen("127.0.0.1").value();
  const std::vector<std::string> members{near->address(), far->address()};
  const auto join = [&](std::unique_ptr<Endpoint> endpoint, int rank) {
    return backend.Join(std::move(endpoint), {rank, 2, 7, kToken, members}, {},
                        Deadline::In(milliseconds(5000)));
  };
  Result<std::unique_ptr<Communicator>> first = Internal("not run");
  std::thread other([&] { first = join(std::move(near), 0); });
  const auto second = join(std::move(far), 1);
  other.join();
  ASSERT_TRUE(first.ok() && second.ok()) << first.status().ToString();
  for (const auto& [epoch, reason] : {std::pair{7, "late"}, {6, "epoch"}}) {
    const double before = Refusals(reason);
    const Status status = DialLane(members[0], kToken, static_cast<uint64_t>(epoch), 1);
    EXPECT_EQ(status.code(), StatusCode::kPermissionDenied) << status.ToString();
    EXPECT_NE(status.message().find(reason), std::string::npos) << status.ToString();
    EXPECT_EQ(Refusals(reason), before + 1);
  }
  std::vector<float> sums[2];
  const auto add = [&](Communicator& comm) {
    std::vector<float>& data = sums[comm.rank()];
    data.assign(1 << 18, 1.0f);
    EXPECT_TRUE(
        comm.AllReduce(data.data(), data.data(), data.size(), DataType::kFloat32, ReduceOp::kSum)
            .ok());
  };
  std::thread adder([&] { add(**first); });
  add(**second);
  adder.join();
  EXPECT_EQ(sums[0], std::vector<float>(1 << 18, 2.0f));
  EXPECT_EQ(sums[0], sums[1]);
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
                             [](int, Connection) { return Verdict::kAccepted; });
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
