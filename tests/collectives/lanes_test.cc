// Several connections to one peer: what travels on which, and what becomes of a transfer when one
// of them is slow, cut, or changes what it carries.
#include "collectives/transport/lanes.h"

#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/transport/frame_sum.h"
#include "collectives/transport/link_mesh.h"
#include "collectives/transport/tcp_link.h"

namespace lepton::collectives {
namespace {

using std::chrono::milliseconds;
using Bytes = std::vector<unsigned char>;

constexpr size_t kKiB = 1024;
constexpr Duration kLong = std::chrono::seconds(20);

Bytes SomeBytes(size_t size, unsigned seed) {
  Bytes bytes(size);
  std::mt19937 random(seed);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

// `wants`: of each rank. `hosts`: a letter for each, or one for all.
std::vector<MemberAddress> Members(const std::vector<int>& wants, const std::string& hosts) {
  std::vector<MemberAddress> members;
  for (size_t rank = 0; rank < wants.size(); ++rank) {
    MemberAddress member{"native", "", std::string(1, hosts[rank % hosts.size()]), 1, "h", 1};
    member.lanes = wants[rank];
    members.push_back(member);
  }
  return members;
}

TEST(LanesBetween, AreTheFewestThatAnyRankWants) {
  EXPECT_EQ(LanesBetween(Members({4, 2, 8}, "abc"), 0, 2), 2) << "rank 1 counts, too";
  EXPECT_EQ(LanesBetween(Members({1, 0}, "ab"), 0, 1), 1);
  EXPECT_EQ(LanesBetween(Members({16, 16}, "ab"), 0, 1), 16);
  EXPECT_EQ(LanesBetween(Members({8, 0}, "ab"), 0, 1), 4) << "who leaves it open does not want 8";
}

TEST(LanesBetween, AreFourBetweenHostsWhereNobodyMinds) {
  EXPECT_EQ(LanesBetween(Members({0, 0}, "ab"), 0, 1), 4);
  EXPECT_EQ(LanesBetween(Members(std::vector<int>(16, 0), "abcdefghijklmnop"), 3, 9), 4);
}

TEST(LanesBetween, AreFewerInLargeGroups) {
  EXPECT_EQ(LanesBetween(Members(std::vector<int>(32, 0), "ab"), 0, 1), 2);
  EXPECT_EQ(LanesBetween(Members(std::vector<int>(500, 0), "ab"), 0, 1), 1);
  EXPECT_EQ(LanesBetween(Members(std::vector<int>(32, 8), "ab"), 0, 1), 8) << "as all want";
}

TEST(LanesBetween, AreOneWithinAHostUnlessAllWantMore) {
  EXPECT_EQ(LanesBetween(Members({0, 0, 0}, "aab"), 0, 1), 1);
  EXPECT_EQ(LanesBetween(Members({0, 0, 0}, "aab"), 0, 2), 4);
  EXPECT_EQ(LanesBetween(Members({3, 3}, "aa"), 0, 1), 3);
}

TEST(StretchBytes, CoverATransferEvenlyAndNoneIsShort) {
  for (int lanes = 1; lanes <= kMaxLanes; ++lanes) {
    for (const size_t around :
         {0 * kKiB, 64 * kKiB, 128 * kKiB, 192 * kKiB, 256 * kKiB, 1024 * kKiB}) {
      for (size_t bytes = around > 65 ? around - 65 : 1; bytes <= around + 65; ++bytes) {
        const size_t stretch = StretchBytes(bytes, lanes);
        const size_t used = (bytes + stretch - 1) / stretch;
        ASSERT_LE(used, static_cast<size_t>(lanes)) << bytes;
        if (used == 1) {
          ASSERT_TRUE(bytes < 128 * kKiB || lanes == 1) << bytes << " over " << lanes;
          continue;
        }
        ASSERT_EQ(stretch % 64, 0u) << bytes;
        ASSERT_GE(stretch, 64 * kKiB) << bytes;
        ASSERT_GT(bytes - (used - 1) * stretch, stretch - 64 * used) << bytes << " over " << lanes;
      }
    }
  }
}

TEST(Stragglers, AreNamedOnceEachAlsoRankOneBesideRankTen) {
  char bytes[4];
  std::vector<Transfer> transfers;
  for (const int peer : {10, 1, 3, 10}) transfers.push_back(Transfer::Recv(peer, bytes, 4));
  transfers[2].done = 4;
  EXPECT_EQ(Stragglers(transfers), "rank 1, rank 10");
}

// A mesh of ours with `lanes` to a peer, rank 1, whose ends of the connections are in our hands.
class Near {
 public:
  explicit Near(int lanes) : failure_(Failure::Make(2).value()) {
    std::vector<std::vector<std::unique_ptr<Link>>> links(2);
    for (int lane = 0; lane < lanes; ++lane) {
      int ends[2];
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
      links[1].push_back(std::make_unique<TcpLink>(UniqueFd(ends[0])));
      const timeval patience{20, 0};
      setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
      far.emplace_back(ends[1]);
    }
    mesh_.emplace(std::move(links), failure_, Waiter(*failure_, nullptr, false));
  }
  Status Run(std::vector<Transfer> transfers, Duration timeout = kLong) {
    return mesh_->Run(transfers, Deadline::In(timeout));
  }
  // What waits at the far end of a lane.
  size_t Waiting(size_t lane) const {
    int bytes = 0;
    EXPECT_EQ(ioctl(far[lane].get(), FIONREAD, &bytes), 0);
    return static_cast<size_t>(bytes);
  }
  std::vector<UniqueFd> far;

 private:
  std::shared_ptr<Failure> failure_;
  std::optional<LinkMesh> mesh_;
};

struct Header {
  uint32_t bytes, check;
  uint64_t sum;
};

Header HeaderOf(const unsigned char* data, size_t size) {
  FrameSum sum;
  sum.Update(data, size);
  const auto bytes = static_cast<uint32_t>(size);
  return {bytes, bytes ^ 0x4C505446u, sum.Value()};
}

Bytes Frame(const unsigned char* data, size_t size) {
  const Header header = HeaderOf(data, size);
  Bytes frame(sizeof(header) + size);
  std::memcpy(frame.data(), &header, sizeof(header));
  std::memcpy(frame.data() + sizeof(header), data, size);
  return frame;
}

void Put(const UniqueFd& fd, const Bytes& bytes) {
  ASSERT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

Bytes Take(const UniqueFd& fd, size_t size) {
  Bytes bytes(size);
  EXPECT_EQ(recv(fd.get(), bytes.data(), size, MSG_WAITALL), static_cast<ssize_t>(size));
  return bytes;
}

TEST(LaneWire, SmallTransfersTakeTheFirstLaneAlone) {
  Near near(4);
  for (const size_t size : {size_t{1}, 128 * kKiB - 1}) {
    const Bytes bytes = SomeBytes(size, 1);
    ASSERT_TRUE(near.Run({Transfer::Send(1, bytes.data(), size)}).ok());
    EXPECT_EQ(Take(near.far[0], sizeof(Header) + size), Frame(bytes.data(), size));
    for (const size_t lane : {1u, 2u, 3u}) EXPECT_EQ(near.Waiting(lane), 0u) << "lane " << lane;
  }
}

// As transport/FORMAT.md says: who reads it can put the bytes where they belong.
TEST(LaneWire, LargeTransfersGoInEqualStretches) {
  Near near(4);
  constexpr size_t kSize = 260 * kKiB + 5, kStretch = 66624;  // a quarter, in whole cache lines
  const Bytes bytes = SomeBytes(kSize, 2);
  ASSERT_TRUE(near.Run({Transfer::Send(1, bytes.data(), kSize)}).ok());
  for (size_t lane = 0; lane < 4; ++lane) {
    const size_t size = std::min(kStretch, kSize - lane * kStretch);
    EXPECT_EQ(Take(near.far[lane], sizeof(Header) + size),
              Frame(bytes.data() + lane * kStretch, size));
    EXPECT_EQ(near.Waiting(lane), 0u);
  }
}

// Each transfer of a peer and direction follows the one before on each of its lanes.
TEST(LaneWire, TransfersKeepTheirOrderOnEachLane) {
  Near near(2);
  const Bytes large = SomeBytes(128 * kKiB, 3), small = SomeBytes(100, 4),
              next = SomeBytes(128 * kKiB, 5);
  Bytes got_large(large.size()), got_small(small.size()), got_next(next.size());
  // The second lane's bytes are all there first; the first lane's come in crumbs, so that one may
  // come between the looks for two transfers.
  Put(near.far[1], Frame(large.data() + 64 * kKiB, 64 * kKiB));
  Put(near.far[1], Frame(next.data() + 64 * kKiB, 64 * kKiB));
  std::thread later([&] {
    const Bytes first = Frame(large.data(), 64 * kKiB);
    for (size_t at = 0; at < first.size(); at += 8) {
      Put(near.far[0],
          Bytes(first.begin() + static_cast<ptrdiff_t>(at),
                first.begin() + static_cast<ptrdiff_t>(std::min(at + 8, first.size()))));
    }
    Put(near.far[0], Frame(small.data(), small.size()));
    Put(near.far[0], Frame(next.data(), 64 * kKiB));
  });
  const Status status = near.Run({Transfer::Recv(1, got_large.data(), got_large.size()),
                                  Transfer::Recv(1, got_small.data(), got_small.size()),
                                  Transfer::Recv(1, got_next.data(), got_next.size())});
  later.join();
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(got_large, large);
  EXPECT_EQ(got_small, small);
  EXPECT_EQ(got_next, next);
}

TEST(LaneFaults, ALaneThatStandsStillHoldsUpNoOther) {
  constexpr size_t kSize = 8 << 20, kStretch = kSize / 4, kFrame = 256 * kKiB;
  for (size_t slow = 0; slow < 4; ++slow) {
    Near near(4);
    const Bytes bytes = SomeBytes(kSize, 6);
    Status sent = Internal("not run");
    std::thread sender([&] { sent = near.Run({Transfer::Send(1, bytes.data(), kSize)}); });
    const auto take_all = [&](size_t lane) {
      for (size_t at = 0; at < kStretch; at += kFrame) {
        ASSERT_EQ(Take(near.far[lane], sizeof(Header) + kFrame),
                  Frame(bytes.data() + lane * kStretch + at, kFrame));
      }
    };
    for (size_t lane = 0; lane < 4; ++lane) {
      if (lane != slow) take_all(lane);
    }
    take_all(slow);
    sender.join();
    EXPECT_TRUE(sent.ok()) << sent.ToString();
  }
}

TEST(LaneFaults, ACutLaneIsACutLinkWhicheverItIs) {
  constexpr size_t kSize = 4 << 20;
  for (size_t cut = 0; cut < 4; ++cut) {
    for (const bool sends : {false, true}) {
      Near near(4);
      Bytes bytes(kSize);
      const Transfer transfer =
          sends ? Transfer::Send(1, bytes.data(), kSize) : Transfer::Recv(1, bytes.data(), kSize);
      std::thread cutter([&] {
        std::this_thread::sleep_for(milliseconds(20));
        shutdown(near.far[cut].get(), SHUT_RDWR);
      });
      const Status status = near.Run({transfer}, kLong);
      cutter.join();
      EXPECT_EQ(status.code(), StatusCode::kAborted) << status.ToString();
      EXPECT_EQ(status.message().rfind("rank 1 is gone", 0), 0u) << status.ToString();
    }
  }
}

TEST(LaneFaults, AFlippedBitOnAnyLaneIsFound) {
  constexpr size_t kSize = 256 * kKiB, kStretch = kSize / 4;
  const Bytes bytes = SomeBytes(kSize, 7);
  for (size_t hurt = 0; hurt < 4; ++hurt) {
    Near near(4);
    for (size_t lane = 0; lane < 4; ++lane) {
      Bytes frame = Frame(bytes.data() + lane * kStretch, kStretch);
      if (lane == hurt) frame[sizeof(Header) + kStretch - 1] ^= 1;
      Put(near.far[lane], frame);
    }
    Bytes got(kSize);
    const Status status = near.Run({Transfer::Recv(1, got.data(), kSize)});
    EXPECT_EQ(status.code(), StatusCode::kAborted) << status.ToString();
    EXPECT_EQ(status.message().rfind("from rank 1: " + std::string(kCorruptBytes), 0), 0u)
        << status.ToString();
  }
}

TEST(LaneFaults, ALaneThatStaysSilentMissesTheDeadlineAndItsPeerIsNamed) {
  Near near(4);
  constexpr size_t kSize = 256 * kKiB, kStretch = kSize / 4;
  const Bytes bytes = SomeBytes(kSize, 8);
  for (const size_t lane : {0u, 1u, 3u}) {
    Put(near.far[lane], Frame(bytes.data() + lane * kStretch, kStretch));
  }
  Bytes got(kSize);
  const Status status = near.Run({Transfer::Recv(1, got.data(), kSize)}, milliseconds(100));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.ToString();
  EXPECT_NE(status.message().find("rank 1"), std::string::npos);
}

}  // namespace
}  // namespace lepton::collectives
