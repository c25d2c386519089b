#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <fstream>
#include <thread>

#include <sys/wait.h>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/progress.h"
#include "storage/objects/object_store.h"
#include "tests/storage/small_disk.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

namespace fs = std::filesystem;

class ObjectStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = ObjectStore::Open(folder_.path());
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }
  size_t FilesIn(const char* name) const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_.path() / name), fs::directory_iterator()));
  }

  TempFolder folder_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(ObjectStoreTest, GivesBackWhatWasPutUnderItsSha256) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65536}, size_t{1'000'003}}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31);
    const auto digest = store_->Put(bytes);
    ASSERT_THAT(digest, IsOk());
    EXPECT_EQ(*digest, Sha256Hex(bytes));
    EXPECT_TRUE(store_->Has(*digest));
    EXPECT_EQ(store_->Size(*digest).value(), size);
    EXPECT_EQ(store_->Get(*digest).value(), bytes);
  }
  EXPECT_EQ(FilesIn("tmp"), 0u);
}

// Others wait for who moves a large object, and see that it does.
TEST_F(ObjectStoreTest, WhatIsLargeMovesInPieces) {
  constexpr uint64_t kPieces = 40;
  std::string bytes((kPieces << 20) + 1, 'x');
  for (size_t i = 0; i < bytes.size(); i += 4096) bytes[i] = static_cast<char>(i >> 12);
  const auto moves = [](const auto& act) {
    const uint64_t before = progress::Now().moves;
    act();
    return progress::Now().moves - before;
  };
  Digest digest;
  EXPECT_GE(moves([&] { digest = store_->Put(bytes).value(); }), 2 * kPieces) << "hash and write";
  EXPECT_GE(moves([&] { EXPECT_EQ(store_->Put(bytes).value(), digest); }), kPieces) << "hash";
  EXPECT_GE(moves([&] { EXPECT_EQ(store_->Get(digest).value(), bytes); }), 2 * kPieces);
  EXPECT_GE(moves([&] { EXPECT_EQ(store_->Map(digest).value().bytes(), bytes); }), kPieces);
  EXPECT_GE(moves([&] {
              const auto writer = store_->NewObject().value();
              for (int i = 0; i < 3; ++i) ASSERT_THAT(writer->Append("a"), IsOk());
              ASSERT_THAT(writer->Finish(Sha256Hex("aaa")), IsOk());
            }),
            3u);
}

TEST_F(ObjectStoreTest, MapsWhatWasPutAndFindsDamageOnlyWhenAskedTo) {
  const std::string bytes(10'000, 'x');
  const Digest digest = store_->Put(bytes).value(), empty = store_->Put("").value();
  auto mapped = store_->Map(digest);
  ASSERT_THAT(mapped, IsOk());
  EXPECT_EQ(mapped->bytes(), bytes);
  EXPECT_EQ(store_->Map(empty).value().size(), 0u);
  EXPECT_THAT(store_->Map(Sha256Hex("none")), Fails(StatusCode::kNotFound, "object"));
  EXPECT_THAT(store_->Map("../x"), Fails(StatusCode::kInvalidArgument, "digest"));

  std::ofstream(store_->PathOf(digest), std::ios::in | std::ios::out) << "damage";
  EXPECT_THAT(store_->Map(digest, /*verify=*/false), IsOk());
  EXPECT_THAT(store_->Map(digest), Fails(StatusCode::kDataLoss, "do not match"));
  EXPECT_EQ(FilesIn("corrupt"), 1u);
  EXPECT_EQ(mapped->size(), bytes.size()) << "a view outlives its file's name";
}

TEST_F(ObjectStoreTest, PuttingTheSameBytesTwiceKeepsOneFile) {
  const Digest digest = store_->Put("same").value();
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(store_->PathOf(digest).c_str(), &before), 0);
  EXPECT_EQ(store_->Put("same").value(), digest);
  ASSERT_EQ(::stat(store_->PathOf(digest).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST_F(ObjectStoreTest, RangesStopAtTheEnd) {
  const Digest digest = store_->Put("0123456789").value();
  EXPECT_EQ(store_->GetRange(digest, 0, 4).value(), "0123");
  EXPECT_EQ(store_->GetRange(digest, 8, 100).value(), "89");
  EXPECT_EQ(store_->GetRange(digest, 10, 4).value(), "");
  EXPECT_EQ(store_->GetRange(digest, UINT64_MAX, SIZE_MAX).value(), "");
}

TEST_F(ObjectStoreTest, WhatIsMissingIsNotFound) {
  const Digest digest = Sha256Hex("nobody stored this");
  EXPECT_FALSE(store_->Has(digest));
  EXPECT_THAT(store_->Get(digest), Fails(StatusCode::kNotFound, digest));
  EXPECT_THAT(store_->GetRange(digest, 0, 1), Fails(StatusCode::kNotFound, digest));
  EXPECT_THAT(store_->Size(digest), Fails(StatusCode::kNotFound, digest));
  EXPECT_THAT(store_->Remove(digest), Fails(StatusCode::kNotFound, digest));
}

TEST_F(ObjectStoreTest, TextThatIsNoDigestNeverReachesTheDisk) {
  const std::string upper(64, 'A'), path = "../../etc/passwd" + std::string(48, 'a');
  for (const std::string& bad : {std::string(), std::string("ab"), upper, path}) {
    EXPECT_FALSE(IsDigest(bad));
    EXPECT_FALSE(store_->Has(bad));
    EXPECT_THAT(store_->Get(bad), Fails(StatusCode::kInvalidArgument, "64 lower-case hex digits"));
    EXPECT_THAT(store_->Remove(bad), Fails(StatusCode::kInvalidArgument, ""));
    EXPECT_FALSE(fs::exists(store_->PathOf(bad)));
  }
}

TEST_F(ObjectStoreTest, EveryFlippedByteIsFoundAndTheFileQuarantined) {
  const std::string bytes = "the quick brown fox";
  const Digest digest = Sha256Hex(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(store_->Put(bytes).value(), digest);
    std::string bad = bytes;
    bad[i] ^= 0x40;
    std::ofstream(store_->PathOf(digest), std::ios::binary) << bad;
    EXPECT_THAT(store_->Get(digest), Fails(StatusCode::kDataLoss, digest));
    EXPECT_THAT(store_->Get(digest), Fails(StatusCode::kNotFound, digest));
    EXPECT_EQ(FilesIn("corrupt"), i + 1);
  }
  ASSERT_EQ(store_->Put(bytes).value(), digest);
  EXPECT_EQ(store_->Get(digest).value(), bytes);
}

TEST_F(ObjectStoreTest, ACutObjectIsFoundAndReplacedByTheNextPut) {
  const Digest digest = store_->Put("a whole object").value();
  ASSERT_EQ(::truncate(store_->PathOf(digest).c_str(), 3), 0);
  EXPECT_EQ(store_->Put("a whole object").value(), digest);
  EXPECT_EQ(store_->Get(digest).value(), "a whole object");
}

std::string AllOf(ObjectStore::Reader& reader, size_t piece, Status& status) {
  std::string all;
  while (all.size() < reader.size()) {
    const Result<std::string> bytes = reader.Next(piece);
    status = bytes.status();
    if (!status.ok()) break;
    EXPECT_GT(bytes->size(), 0u);
    EXPECT_LE(bytes->size(), piece);
    all += *bytes;
  }
  return all;
}

TEST_F(ObjectStoreTest, AReaderGivesAllOfAnObjectInPieces) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{1'000'003}}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31);
    const Digest digest = store_->Put(bytes).value();
    for (const size_t piece : {size_t{1000}, size_t{65536}}) {
      const auto reader = store_->Read(digest).value();
      EXPECT_EQ(reader->size(), size);
      Status status;
      EXPECT_EQ(AllOf(*reader, piece, status), bytes);
      EXPECT_THAT(status, IsOk());
    }
  }
  EXPECT_THAT(store_->Read(Sha256Hex("absent")).status(), Fails(StatusCode::kNotFound, ""));
}

TEST_F(ObjectStoreTest, AReaderKeepsTheLastPieceOfADamagedObject) {
  const std::string bytes(10'000, 'x');
  const Digest digest = store_->Put(bytes).value();
  {
    std::fstream file(store_->PathOf(digest), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(17);
    file.put('y');
  }
  const auto reader = store_->Read(digest).value();
  Status status;
  EXPECT_EQ(AllOf(*reader, 3000, status).size(), 9000u);
  EXPECT_THAT(status, Fails(StatusCode::kDataLoss, ""));
  EXPECT_FALSE(store_->Has(digest)) << "it was not moved aside";
}

TEST_F(ObjectStoreTest, AReaderSaysThatAnObjectWasCutMeanwhile) {
  const Digest digest = store_->Put(std::string(10'000, 'x')).value();
  const auto reader = store_->Read(digest).value();
  fs::resize_file(store_->PathOf(digest), 4000);
  Status status;
  EXPECT_LT(AllOf(*reader, 3000, status).size(), 10'000u);
  EXPECT_THAT(status, Fails(StatusCode::kDataLoss, ""));
}

TEST_F(ObjectStoreTest, PiecesBecomeVisibleOnlyWhenFinished) {
  const Digest digest = Sha256Hex("one two three");
  auto writer = store_->NewObject().value();
  for (const char* piece : {"one", " two", "", " three"}) {
    ASSERT_THAT(writer->Append(piece), IsOk());
    EXPECT_FALSE(store_->Has(digest));
  }
  EXPECT_EQ(writer->size(), 13u);
  EXPECT_EQ(writer->Finish(digest).value(), digest);
  EXPECT_EQ(store_->Get(digest).value(), "one two three");
  EXPECT_THAT(writer->Finish(), Fails(StatusCode::kFailedPrecondition, ""));
  EXPECT_THAT(writer->Append("x"), Fails(StatusCode::kFailedPrecondition, ""));
}

TEST_F(ObjectStoreTest, AnUnfinishedOrUnexpectedObjectLeavesNothing) {
  {
    auto writer = store_->NewObject().value();
    ASSERT_THAT(writer->Append("abandoned"), IsOk());
    EXPECT_EQ(FilesIn("tmp"), 1u);
  }
  EXPECT_EQ(FilesIn("tmp"), 0u);
  {
    auto writer = store_->NewObject().value();
    ASSERT_THAT(writer->Append("received"), IsOk());
    EXPECT_THAT(writer->Finish(Sha256Hex("expected")),
                Fails(StatusCode::kDataLoss, Sha256Hex("received")));
  }
  EXPECT_EQ(FilesIn("tmp"), 0u);
  EXPECT_FALSE(store_->Has(Sha256Hex("received")));
}

TEST_F(ObjectStoreTest, OpenRemovesOnlyOldTemporaryFiles) {
  const fs::path old_file = folder_.path() / "tmp" / "old", young = folder_.path() / "tmp" / "new";
  std::ofstream(old_file) << "x";
  std::ofstream(young) << "x";
  const utimbuf two_hours_ago = {::time(nullptr) - 7200, ::time(nullptr) - 7200};
  ASSERT_EQ(::utime(old_file.c_str(), &two_hours_ago), 0);
  ASSERT_THAT(ObjectStore::Open(folder_.path()), IsOk());
  EXPECT_FALSE(fs::exists(old_file));
  EXPECT_TRUE(fs::exists(young));
}

// A transfer may wait for its coordinator that long, and a task's start opens the store.
TEST_F(ObjectStoreTest, OpenLeavesOldTemporaryFilesThatAreWritten) {
  auto writer = store_->NewObject().value();
  ASSERT_THAT(writer->Append("slow"), IsOk());
  for (const auto& file : fs::directory_iterator(folder_.path() / "tmp")) {
    const utimbuf two_hours_ago = {::time(nullptr) - 7200, ::time(nullptr) - 7200};
    ASSERT_EQ(::utime(file.path().c_str(), &two_hours_ago), 0);
  }
  ASSERT_THAT(ObjectStore::Open(folder_.path()), IsOk());
  EXPECT_THAT(writer->Finish(), IsOk());
}

TEST_F(ObjectStoreTest, ManyThreadsMayStoreTheSameAndDifferentBytes) {
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string mine = std::to_string(t) + "/" + std::to_string(i);
        const auto a = store_->Put("shared " + std::to_string(i)), b = store_->Put(mine);
        if (!a.ok() || !b.ok() || store_->Get(*b).value() != mine) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(FilesIn("tmp"), 0u);
}

// A writer is killed at moments spread over its work: what has a name is whole.
TEST_F(ObjectStoreTest, KilledWritersLeaveOnlyWholeObjects) {
  const auto object = [](int i) {
    return std::string(50'000, static_cast<char>('a' + i % 26)) + std::to_string(i);
  };
  size_t survivors = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int i = round * 1000;; ++i) {
        if (!store_->Put(object(i)).ok()) ::_exit(1);
      }
    }
    ::usleep(2000 + 1700 * round);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    for (int i = round * 1000; store_->Has(Sha256Hex(object(i))); ++i) {
      EXPECT_EQ(store_->Get(Sha256Hex(object(i))).value(), object(i));
      ++survivors;
    }
  }
  EXPECT_GT(survivors, 0u);
  EXPECT_EQ(FilesIn("corrupt"), 0u);
}

TEST(ObjectStoreDiskTest, AFullDiskIsResourceExhaustedAndLeavesNothing) {
  std::string why;
  const auto disk = SmallDisk::Mount(256 << 10, &why);
  if (!disk) GTEST_SKIP() << why;
  const auto store = ObjectStore::Open(disk->path() / "store").value();
  const Digest kept = store->Put("stored before").value();
  const std::string big(400 << 10, 'b');
  EXPECT_THAT(store->Put(big), Fails(StatusCode::kResourceExhausted, "No space left"));
  EXPECT_FALSE(store->Has(Sha256Hex(big)));
  EXPECT_TRUE(fs::is_empty(disk->path() / "store" / "tmp"));

  disk->FillUp();
  EXPECT_THAT(store->Put("small"), Fails(StatusCode::kResourceExhausted, "No space left"));
  EXPECT_EQ(store->Get(kept).value(), "stored before");
  disk->MakeRoom();
  EXPECT_THAT(store->Put("small"), IsOk());
}

TEST(ObjectStoreDiskTest, AReadOnlyDiskIsPermissionDeniedButReadable) {
  std::string why;
  const auto disk = SmallDisk::Mount(256 << 10, &why);
  if (!disk) GTEST_SKIP() << why;
  const auto store = ObjectStore::Open(disk->path()).value();
  const Digest kept = store->Put("stored before").value();
  ASSERT_TRUE(disk->SetReadOnly(true));
  EXPECT_THAT(store->Put("new"), Fails(StatusCode::kPermissionDenied, "Read-only file system"));
  EXPECT_THAT(ObjectStore::Open(disk->path()), Fails(StatusCode::kPermissionDenied, ""));
  EXPECT_EQ(store->Get(kept).value(), "stored before");
}

}  // namespace
}  // namespace lepton::storage
