// What arrives changed is found, wherever the change is.
#include "collectives/transport/tcp_link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/transport/socket.h"
#include "runtime/base/metrics.h"

namespace lepton::collectives {
namespace {

using Bytes = std::vector<unsigned char>;
using std::chrono::milliseconds;
using std::chrono::seconds;

Bytes Pattern(size_t size) {
  Bytes bytes(size);
  std::mt19937 random(7);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

uint64_t SumOf(const Bytes& bytes) {
  FrameSum sum;
  sum.Update(bytes.data(), bytes.size());
  return sum.Value();
}

TEST(FrameSum, DoesNotDependOnThePieces) {
  const Bytes bytes = Pattern(5000);
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    FrameSum sum;
    for (size_t at = 0; at < bytes.size();) {
      const size_t piece = std::min<size_t>(bytes.size() - at, random() % 700);
      sum.Update(bytes.data() + at, piece);
      at += piece;
    }
    ASSERT_EQ(sum.Value(), SumOf(bytes));
  }
}

// Of plain code's making: both ends of a connection must agree, whatever their instruction sets.
TEST(FrameSum, IsTheSameOnEveryMachine) {
  EXPECT_EQ(SumOf(Pattern(5)), 0xfe8e11f45af1c31u);
  EXPECT_EQ(SumOf(Pattern(700)), 0xf40763d63b11bc1cu);
  EXPECT_EQ(SumOf(Pattern(5000)), 0x501b7085491fb953u);
}

TEST(FrameSum, AnyChangedBitAndAnyMissingByteShow) {
  for (const size_t size : {1u, 7u, 32u, 33u, 200u, 512u, 600u}) {
    Bytes bytes = Pattern(size);
    const uint64_t right = SumOf(bytes);
    for (size_t bit = 0; bit < size * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
      EXPECT_NE(SumOf(bytes), right) << size << " bytes, bit " << bit;
      bytes[bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
    }
    bytes.push_back(0);
    EXPECT_NE(SumOf(bytes), right) << "a zero more";
  }
}

class Wire {
 public:
  Wire() {
    int near[2], far[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, near), 0);
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, far), 0);
    sender = std::make_unique<TcpLink>(UniqueFd(near[0]));
    receiver = std::make_unique<TcpLink>(UniqueFd(far[1]));
    from_.Reset(near[1]);
    to_.Reset(far[0]);
  }
  // All that was sent and has not been carried over yet.
  Bytes Take() {
    Bytes bytes(size_t{1} << 20);
    const ssize_t got = recv(from_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return bytes;
  }
  void Put(const Bytes& bytes) {
    ASSERT_EQ(send(to_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  // Carries `bytes` over in parts, with the bit of the stream flipped (none: -1).
  Status Carry(const Bytes& bytes, int64_t flipped, Bytes* out) {
    size_t sent = 0, received = 0;
    int64_t carried = 0;
    out->assign(bytes.size(), 0);
    for (int idle = 0; received < bytes.size() && idle < 100; ++idle) {
      if (sent < bytes.size()) {
        auto now = sender->TrySend(bytes.data() + sent, bytes.size() - sent);
        if (!now.ok()) return now.status();
        sent += *now;
      }
      Bytes part = Take();
      const int64_t bit = flipped - carried * 8;
      if (flipped >= 0 && bit >= 0 && bit < static_cast<int64_t>(part.size()) * 8) {
        part[static_cast<size_t>(bit / 8)] ^= static_cast<unsigned char>(1u << bit % 8);
      }
      carried += static_cast<int64_t>(part.size());
      if (!part.empty()) Put(part);
      auto now = receiver->TryRecv(out->data() + received, bytes.size() - received);
      if (!now.ok()) return now.status();
      received += *now;
      if (*now > 0) idle = 0;
    }
    return received == bytes.size() ? Status::Ok() : Unavailable("it hangs");
  }
  std::unique_ptr<TcpLink> sender, receiver;

 private:
  UniqueFd from_, to_;
};

TEST(TcpLink, CarriesTransfersOfAnySize) {
  Wire wire;
  for (const size_t size : {1u, 15u, 4096u, 300'000u, 1'000'000u, 3u}) {
    const Bytes bytes = Pattern(size);
    Bytes out;
    const Status status = wire.Carry(bytes, -1, &out);
    ASSERT_TRUE(status.ok()) << size << ": " << status.ToString();
    EXPECT_EQ(out, bytes);
  }
}

TEST(TcpLink, AFlippedBitAnywhereIsFound) {
  const Bytes bytes = Pattern(100);
  constexpr int64_t kBits = (100 + 16) * 8;
  const auto& counted = metrics::Counter("lepton_collectives_corrupt_total", "");
  const double before = counted.Value();
  for (int64_t bit = 0; bit < kBits; ++bit) {
    Wire wire;
    Bytes out;
    const Status status = wire.Carry(bytes, bit, &out);
    ASSERT_EQ(status.code(), StatusCode::kDataLoss) << "bit " << bit << ": " << status.ToString();
    EXPECT_NE(status.message().find(kCorruptBytes), std::string::npos);
  }
  EXPECT_EQ(counted.Value() - before, kBits);
}

TEST(TcpLink, APeerInAnotherOperationIsFoundByItsShorterTransfer) {
  Wire wire;
  const Bytes bytes = Pattern(100);
  ASSERT_EQ(wire.sender->TrySend(bytes.data(), bytes.size()).value(), bytes.size());
  wire.Put(wire.Take());
  Bytes out(101);
  const auto received = wire.receiver->TryRecv(out.data(), out.size());
  ASSERT_EQ(received.status().code(), StatusCode::kAborted);
  EXPECT_NE(received.status().message().find("another operation"), std::string::npos);
}

TEST(TcpLink, OneReceiverMayReadInOtherPiecesThanWereSent) {
  Wire wire;
  const Bytes bytes = Pattern(1000);
  ASSERT_EQ(wire.sender->TrySend(bytes.data(), bytes.size()).value(), bytes.size());
  wire.Put(wire.Take());
  Bytes out(bytes.size());
  size_t received = 0;
  while (received < out.size()) {
    received +=
        wire.receiver->TryRecv(out.data() + received, std::min<size_t>(37, out.size() - received))
            .value();
  }
  EXPECT_EQ(out, bytes);
}

// A receiver that has no room for more makes no link slow.
TEST(TcpLink, TheTimeInWhichTheReceiverIsFullIsNotTheLinks) {
  const Listener listener = ListenOn("127.0.0.1").value();
  TcpLink sender(ConnectTo("127.0.0.1", listener.port, Deadline::In(seconds(10))).value());
  TcpLink receiver(AcceptFrom(listener.socket));
  EXPECT_LE(sender.Look().bytes, 1u);  // some kernels count the connection itself
  const Bytes bytes = Pattern(64 << 20);
  size_t sent = 0;
  const auto fill = [&] {
    while (true) {
      const auto now = sender.TrySend(bytes.data() + sent, bytes.size() - sent);
      ASSERT_TRUE(now.ok());
      if (*now == 0) return;
      sent += *now;
    }
  };
  fill();
  std::this_thread::sleep_for(milliseconds(400));
  fill();
  ASSERT_LT(sent, bytes.size());
  const LinkLook full = sender.Look();
  EXPECT_GT(full.bytes, 0u);
  EXPECT_TRUE(full.queued);
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_LT(sender.Look().busy - full.busy, milliseconds(100));
  // All that was sent is read, and acknowledged, and nothing waits any more.
  Bytes got(sent);
  for (size_t read = 0; read < sent;) {
    const auto now = receiver.TryRecv(got.data() + read, bytes.size() - read);
    ASSERT_TRUE(now.ok());
    read += *now;
  }
  const Deadline limit = Deadline::In(seconds(10));
  while (sender.Look().queued && !limit.Expired()) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_GE(sender.Look().bytes, sent);
  EXPECT_FALSE(sender.Look().queued);
}

}  // namespace
}  // namespace lepton::collectives
