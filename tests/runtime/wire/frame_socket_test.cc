#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "runtime/base/file.h"
#include "runtime/wire/channel.h"

namespace lepton::wire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Pair {
  Pair() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    a.Reset(fds[0]);
    b.Reset(fds[1]);
  }
  UniqueFd a, b;
};

TaskUp Progress(uint64_t step, size_t metric_bytes = 0) {
  TaskUp up;
  up.mutable_progress()->set_step(step);
  if (metric_bytes > 0) {
    (*up.mutable_progress()->mutable_metrics())[std::string(metric_bytes, 'm')] = 1;
  }
  return up;
}

TEST(FrameSocketTest, MessagesArriveInOrder) {
  Pair pair;
  FrameSocket out(pair.a.get()), in(pair.b.get());
  std::thread writer([&] {
    for (uint64_t i = 0; i < 100; ++i) {
      EXPECT_TRUE(out.Send(Progress(i, i * 5000), Deadline::In(seconds(10))).ok());
    }
  });
  for (uint64_t i = 0; i < 100; ++i) {
    TaskUp up;
    const Status status = in.Receive(&up, Deadline::In(seconds(10)));
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(up.progress().step(), i);
  }
  writer.join();
}

TEST(FrameSocketTest, AQuietPeerIsADeadlineNotAnError) {
  Pair pair;
  FrameSocket in(pair.b.get());
  TaskUp up;
  EXPECT_EQ(in.Receive(&up, Deadline::In(milliseconds(20))).code(), StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(FrameSocket(pair.a.get()).Send(Progress(7), Deadline::In(seconds(1))).ok());
  ASSERT_TRUE(in.Receive(&up, Deadline::In(seconds(1))).ok());
  EXPECT_EQ(up.progress().step(), 7u);
}

TEST(FrameSocketTest, AClosedPeerIsUnavailable) {
  Pair pair;
  pair.a.Reset();
  TaskUp up;
  FrameSocket socket(pair.b.get());
  EXPECT_EQ(socket.Receive(&up, Deadline::In(seconds(1))).code(), StatusCode::kUnavailable);
  EXPECT_EQ(socket.Send(Progress(1), Deadline::In(seconds(1))).code(), StatusCode::kUnavailable);
}

TEST(FrameSocketTest, APeerThatNeverReadsEndsASend) {
  Pair pair;
  FrameSocket socket(pair.a.get());
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    status = socket.Send(Progress(1, 100'000), Deadline::In(milliseconds(20)));
  }
  EXPECT_FALSE(status.ok());
}

TEST(FrameSocketTest, OversizedCutAndMalformedFramesAreDataLoss) {
  const std::string cases[] = {
      std::string("\xff\xff\xff\x7f", 4),                  // 2 GiB announced
      std::string("\x10\x00\x00\x00half", 8),              // 16 announced, 4 come
      std::string("\x04\x00", 2),                          // cut within the length
      std::string("\x04\x00\x00\x00\xff\xff\xff\xff", 8),  // not protobuf
  };
  for (const std::string& bytes : cases) {
    Pair pair;
    ASSERT_TRUE(WriteAll(pair.a.get(), bytes).ok());
    pair.a.Reset();
    TaskUp up;
    EXPECT_EQ(FrameSocket(pair.b.get()).Receive(&up, Deadline::In(seconds(1))).code(),
              StatusCode::kDataLoss);
  }
}

TEST(FrameReaderTest, FramesComeOutWholeHoweverTheyArrive) {
  Pair pair, scratch;
  ASSERT_TRUE(FrameSocket(scratch.a.get()).Send(Progress(1, 300), Deadline::In(seconds(1))).ok());
  ASSERT_TRUE(FrameSocket(scratch.a.get()).Send(Progress(2), Deadline::In(seconds(1))).ok());
  std::string bytes(1000, '\0');
  bytes.resize(static_cast<size_t>(read(scratch.b.get(), bytes.data(), bytes.size())));

  FrameReader reader;
  std::vector<uint64_t> steps;
  for (const char byte : bytes) {
    ASSERT_TRUE(WriteAll(pair.a.get(), std::string(1, byte)).ok());
    ASSERT_TRUE(reader.Fill(pair.b.get()).ok());
    auto frame = reader.Next();
    ASSERT_TRUE(frame.ok());
    if (!frame->has_value()) continue;
    TaskUp up;
    ASSERT_TRUE(up.ParseFromString(**frame));
    steps.push_back(up.progress().step());
  }
  EXPECT_EQ(steps, (std::vector<uint64_t>{1, 2}));
}

TEST(FrameReaderTest, FramesBeforeACloseStillComeOut) {
  Pair pair;
  ASSERT_TRUE(FrameSocket(pair.a.get()).Send(Progress(9), Deadline::In(seconds(1))).ok());
  pair.a.Reset();
  FrameReader reader;
  EXPECT_EQ(reader.Fill(pair.b.get()).code(), StatusCode::kUnavailable);
  auto frame = reader.Next();
  ASSERT_TRUE(frame.ok() && frame->has_value());
  EXPECT_FALSE(reader.Next()->has_value());
}

TEST(FrameReaderTest, AnOversizedFrameIsDataLoss) {
  Pair pair;
  ASSERT_TRUE(WriteAll(pair.a.get(), std::string("\xff\xff\xff\xff", 4)).ok());
  FrameReader reader;
  ASSERT_TRUE(reader.Fill(pair.b.get()).ok());
  EXPECT_EQ(reader.Next().status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace lepton::wire
