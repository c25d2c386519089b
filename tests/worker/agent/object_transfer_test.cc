#include "worker/object_transfer.h"

#include <gtest/gtest.h>

#include <thread>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/wire/channel.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kMiB = size_t{1} << 20;

// The coordinator is a function that is called on the sending thread and may answer at once.
class ObjectTransferTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = storage::ObjectStore::Open(folder_.path());
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(*store);
    transfer_ = std::make_unique<ObjectTransfer>(
        store_.get(), [this](const wire::ToCoordinator& message) { coordinator_(message); },
        ObjectTransfer::Limits{milliseconds(50), milliseconds(400), 3});
    transfer_->OnConnected();
  }

  // Serves `bytes` in chunks of `chunk`.
  void Serve(std::string bytes, size_t chunk = wire::kObjectChunkBytes) {
    coordinator_ = [this, bytes, chunk](const wire::ToCoordinator& message) {
      ++requests_;
      transfer_->OnData(Answer(message.object_get(), bytes, chunk));
    };
  }
  static wire::ObjectData Answer(const wire::ObjectGet& get, const std::string& bytes,
                                 size_t chunk) {
    wire::ObjectData data;
    data.set_digest(get.digest());
    data.set_offset(get.offset());
    data.set_request(get.request());
    data.set_total_bytes(bytes.size());
    data.set_data(bytes.substr(get.offset(), chunk));
    return data;
  }
  static wire::ObjectRef Ref(const std::string& bytes) {
    wire::ObjectRef ref;
    ref.set_digest(Sha256Hex(bytes));
    ref.set_bytes(bytes.size());
    return ref;
  }
  static std::string Bytes(size_t size) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
    return bytes;
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> store_;
  std::function<void(const wire::ToCoordinator&)> coordinator_;
  std::unique_ptr<ObjectTransfer> transfer_;
  std::atomic<int> requests_{0};
  std::atomic<bool> cancelled_{false};
};

TEST_F(ObjectTransferTest, ObjectsOfAllSizesArriveWhole) {
  for (const size_t size : {size_t{0}, size_t{1}, kMiB - 1, kMiB, kMiB + 1, 7 * kMiB + 13}) {
    const std::string bytes = Bytes(size);
    Serve(bytes);
    const Status status = transfer_->Fetch(Ref(bytes), cancelled_);
    ASSERT_TRUE(status.ok()) << size << ": " << status.ToString();
    EXPECT_EQ(*store_->Get(Sha256Hex(bytes)), bytes);
  }
}

TEST_F(ObjectTransferTest, ASmallerChunkThanExpectedIsFine) {
  const std::string bytes = Bytes(2 * kMiB + 5);
  Serve(bytes, 100'001);
  ASSERT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok());
  EXPECT_EQ(*store_->Get(Sha256Hex(bytes)), bytes);
}

TEST_F(ObjectTransferTest, WhatIsHereIsNotAskedFor) {
  const std::string bytes = "here already";
  ASSERT_TRUE(store_->Put(bytes).ok());
  coordinator_ = [](const wire::ToCoordinator&) { ADD_FAILURE(); };
  EXPECT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok());
}

TEST_F(ObjectTransferTest, CorruptBytesAreAskedForAgainThenRefused) {
  const std::string bytes = Bytes(3 * kMiB);
  std::string corrupt = bytes;
  corrupt[2 * kMiB] ^= 1;
  Serve(corrupt);
  const Status status = transfer_->Fetch(Ref(bytes), cancelled_);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
  EXPECT_FALSE(store_->Has(Sha256Hex(bytes)));
  EXPECT_GE(requests_, 9);

  int attempt = 0;
  coordinator_ = [&](const wire::ToCoordinator& message) {
    if (message.object_get().offset() == 0) ++attempt;
    transfer_->OnData(
        Answer(message.object_get(), attempt == 1 ? corrupt : bytes, wire::kObjectChunkBytes));
  };
  EXPECT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok());
  EXPECT_EQ(*store_->Get(Sha256Hex(bytes)), bytes);
}

TEST_F(ObjectTransferTest, AnswersThatDoNotFitAreRefused) {
  const std::string bytes = Bytes(2 * kMiB);
  const std::function<void(wire::ObjectData&)> lies[] = {
      [](wire::ObjectData& data) { data.set_offset(data.offset() + 1); },
      [](wire::ObjectData& data) { data.set_total_bytes(5); },
      [](wire::ObjectData& data) { data.set_total_bytes(3 * kMiB); },
      [](wire::ObjectData& data) { data.set_digest(std::string(64, '0')); },
      [](wire::ObjectData& data) { data.clear_data(); },
  };
  for (const auto& lie : lies) {
    coordinator_ = [&](const wire::ToCoordinator& message) {
      wire::ObjectData data = Answer(message.object_get(), bytes, wire::kObjectChunkBytes);
      lie(data);
      transfer_->OnData(std::move(data));
    };
    EXPECT_EQ(transfer_->Fetch(Ref(bytes), cancelled_).code(), StatusCode::kDataLoss);
  }
}

TEST_F(ObjectTransferTest, TheCoordinatorsErrorIsPassedOn) {
  coordinator_ = [&](const wire::ToCoordinator& message) {
    wire::ObjectData data;
    data.set_request(message.object_get().request());
    data.set_error_code("NOT_FOUND");
    data.set_error("gone");
    transfer_->OnData(std::move(data));
  };
  const Status status = transfer_->Fetch(Ref("x"), cancelled_);
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("gone"), std::string::npos);
  wire::ObjectRef bad;
  bad.set_digest("../../etc/passwd");
  EXPECT_EQ(transfer_->Fetch(bad, cancelled_).code(), StatusCode::kInvalidArgument);
}

TEST_F(ObjectTransferTest, LostRequestsAreRepeated) {
  const std::string bytes = Bytes(5 * kMiB);
  int count = 0;
  coordinator_ = [&](const wire::ToCoordinator& message) {
    if (++count % 3 == 2) return;
    transfer_->OnData(Answer(message.object_get(), bytes, wire::kObjectChunkBytes));
  };
  ASSERT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok());
  EXPECT_EQ(*store_->Get(Sha256Hex(bytes)), bytes);
}

TEST_F(ObjectTransferTest, SilenceEndsAFetchButAnAbsentCoordinatorDoesNot) {
  coordinator_ = [](const wire::ToCoordinator&) {};
  EXPECT_EQ(transfer_->Fetch(Ref("x"), cancelled_).code(), StatusCode::kUnavailable);

  const std::string bytes = Bytes(10);
  Serve(bytes);
  transfer_->OnDisconnected();
  std::thread back([&] {
    std::this_thread::sleep_for(milliseconds(600));
    EXPECT_EQ(requests_, 0);
    transfer_->OnConnected();
  });
  EXPECT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok());
  back.join();
}

TEST_F(ObjectTransferTest, CancelAndShutdownEndTheWait) {
  transfer_->OnDisconnected();
  std::thread canceller([&] {
    std::this_thread::sleep_for(milliseconds(20));
    cancelled_ = true;
    transfer_->Wake();
  });
  EXPECT_EQ(transfer_->Fetch(Ref("x"), cancelled_).code(), StatusCode::kCancelled);
  canceller.join();
  cancelled_ = false;
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(20));
    transfer_->Shutdown();
  });
  ASSERT_TRUE(store_->Put("y").ok());
  EXPECT_EQ(transfer_->Upload(Sha256Hex("y"), cancelled_).code(), StatusCode::kCancelled);
  stopper.join();
}

TEST_F(ObjectTransferTest, TwoFetchesOfOneObjectTransferItOnce) {
  const std::string bytes = Bytes(kMiB);
  coordinator_ = [&](const wire::ToCoordinator& message) {
    ++requests_;
    std::this_thread::sleep_for(milliseconds(20));
    transfer_->OnData(Answer(message.object_get(), bytes, wire::kObjectChunkBytes));
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(transfer_->Fetch(Ref(bytes), cancelled_).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(requests_, 1);
}

// Collects an upload as the coordinator does; `trouble` may change the acknowledgement.
struct Collector {
  std::string bytes;
  int puts = 0;
  wire::ObjectAck Take(const wire::ObjectPut& put) {
    ++puts;
    if (put.offset() == bytes.size()) bytes += put.data();
    wire::ObjectAck ack;
    ack.set_digest(put.digest());
    ack.set_request(put.request());
    ack.set_offset(bytes.size());
    ack.set_complete(bytes.size() == put.total_bytes());
    return ack;
  }
};

TEST_F(ObjectTransferTest, UploadsArriveWhole) {
  for (const size_t size : {size_t{0}, size_t{1}, kMiB, 3 * kMiB + 7}) {
    const std::string bytes = Bytes(size);
    ASSERT_TRUE(store_->Put(bytes).ok());
    Collector collector;
    coordinator_ = [&](const wire::ToCoordinator& message) {
      transfer_->OnAck(collector.Take(message.object_put()));
    };
    const Status status = transfer_->Upload(Sha256Hex(bytes), cancelled_);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(collector.bytes, bytes);
  }
}

TEST_F(ObjectTransferTest, ABusyCoordinatorIsAskedAgain) {
  const std::string bytes = Bytes(3 * kMiB), other = Bytes(2 * kMiB);
  ASSERT_TRUE(store_->Put(other).ok());
  Collector collector;
  int count = 0;
  coordinator_ = [&](const wire::ToCoordinator& message) {
    const bool busy = ++count % 3 == 2;
    if (message.has_object_put()) {
      wire::ObjectAck ack = busy ? wire::ObjectAck() : collector.Take(message.object_put());
      ack.set_request(message.object_put().request());
      if (busy) collector.bytes.clear(), ack.set_error_code("UNAVAILABLE");
      return transfer_->OnAck(std::move(ack));
    }
    wire::ObjectData data = Answer(message.object_get(), bytes, wire::kObjectChunkBytes);
    if (busy) data.clear_data(), data.set_error_code("UNAVAILABLE");
    transfer_->OnData(std::move(data));
  };
  const Status fetched = transfer_->Fetch(Ref(bytes), cancelled_);
  EXPECT_TRUE(fetched.ok()) << fetched.ToString();
  count = 0;
  const Status sent = transfer_->Upload(Sha256Hex(other), cancelled_);
  EXPECT_TRUE(sent.ok()) << sent.ToString();
  EXPECT_EQ(collector.bytes, other);
  coordinator_ = [&](const wire::ToCoordinator& message) {
    wire::ObjectData data;
    data.set_request(message.object_get().request());
    data.set_error_code("UNAVAILABLE");
    data.set_error("too many object requests wait");
    transfer_->OnData(std::move(data));
  };
  const Status never = transfer_->Fetch(Ref("x"), cancelled_);
  EXPECT_NE(never.message().find("too many object requests wait"), std::string::npos);
}

TEST_F(ObjectTransferTest, AnUploadThatIsThereAlreadyCostsOneMessage) {
  const std::string bytes = Bytes(5 * kMiB);
  ASSERT_TRUE(store_->Put(bytes).ok());
  coordinator_ = [&](const wire::ToCoordinator& message) {
    ++requests_;
    wire::ObjectAck ack;
    ack.set_request(message.object_put().request());
    ack.set_complete(true);
    transfer_->OnAck(std::move(ack));
  };
  EXPECT_TRUE(transfer_->Upload(Sha256Hex(bytes), cancelled_).ok());
  EXPECT_EQ(requests_, 1);
}

TEST_F(ObjectTransferTest, AnUploadSurvivesLostMessagesAndARestart) {
  const std::string bytes = Bytes(6 * kMiB);
  ASSERT_TRUE(store_->Put(bytes).ok());
  Collector collector;
  coordinator_ = [&](const wire::ToCoordinator& message) {
    wire::ObjectAck ack = collector.Take(message.object_put());
    if (collector.puts == 2) return;  // the answer is lost
    if (collector.puts == 5) {        // it restarts and has nothing
      collector.bytes.clear();
      ack.set_offset(0);
    }
    transfer_->OnAck(std::move(ack));
  };
  const Status status = transfer_->Upload(Sha256Hex(bytes), cancelled_);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(collector.bytes, bytes);
}

TEST_F(ObjectTransferTest, AnUploadThatIsNeverCompleteEnds) {
  ASSERT_TRUE(store_->Put("z").ok());
  coordinator_ = [&](const wire::ToCoordinator& message) {
    wire::ObjectAck ack;
    ack.set_request(message.object_put().request());
    ack.set_offset(0);
    transfer_->OnAck(std::move(ack));
  };
  EXPECT_EQ(transfer_->Upload(Sha256Hex("z"), cancelled_).code(), StatusCode::kInternal);
  EXPECT_EQ(transfer_->Upload(Sha256Hex("not here"), cancelled_).code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace lepton::worker
