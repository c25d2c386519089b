// Disks that are full, read-only or lose bytes under the metadata store.
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "runtime/base/file.h"
#include "storage/metadata/metadata_store.h"
#include "tests/storage/small_disk.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

namespace fs = std::filesystem;

std::string RecordOf(uint64_t seq) {
  return std::to_string(seq) + std::string(8000, '.');
}

// The journal is exactly 1..last.
void ExpectExactly(const MetadataStore& store, uint64_t last) {
  EXPECT_EQ(store.last_seq(), last);
  uint64_t seen = 0;
  EXPECT_THAT(store.Replay(0,
                           [&](uint64_t seq, std::string_view bytes) {
                             EXPECT_EQ(seq, ++seen);
                             EXPECT_EQ(bytes, RecordOf(seq));
                             return Status::Ok();
                           }),
              IsOk());
  EXPECT_EQ(seen, last);
}

fs::path NewestLog(const fs::path& folder) {
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".log" && entry.path() > newest) newest = entry.path();
  }
  return newest;
}

TEST(MetadataDiskTest, AFullDiskFailsWholeBatchesAndHealsWithSpace) {
  std::string why;
  const auto disk = SmallDisk::Mount(16 << 20, &why);
  if (!disk) GTEST_SKIP() << why;
  const fs::path folder = disk->path() / "metadata";
  auto store = MetadataStore::Open(folder).value();
  uint64_t last = 0;
  for (; last < 20; ++last) ASSERT_THAT(store->Append({RecordOf(last + 1)}), IsOk());

  disk->FillUp();
  Status status;
  while ((status = store->Append({RecordOf(last + 1)}).status()).ok()) ASSERT_LT(++last, 2000u);
  EXPECT_THAT(status, Fails(StatusCode::kResourceExhausted, ""));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(store->Append({RecordOf(last + 1), RecordOf(last + 2), RecordOf(last + 3)}),
                Fails(StatusCode::kResourceExhausted, ""));
    EXPECT_THAT(store->Put("logs", {{"k", std::string(100'000, 'v')}}),
                Fails(StatusCode::kResourceExhausted, ""));
    ExpectExactly(*store, last);  // reads go on
  }

  disk->MakeRoom();
  ASSERT_THAT(store->Append({RecordOf(last + 1)}), IsOk());
  ExpectExactly(*store, ++last);
  store.reset();
  store = MetadataStore::Open(folder).value();
  ExpectExactly(*store, last);
}

// An append that fails opens the database again, for which it must be alone with it.
TEST(MetadataDiskTest, AppendsThatFailAndReplaysDoNotWaitForEachOtherForEver) {
  std::string why;
  const auto disk = SmallDisk::Mount(16 << 20, &why);
  if (!disk) GTEST_SKIP() << why;
  const auto store = MetadataStore::Open(disk->path() / "metadata").value();
  ASSERT_THAT(store->Append({RecordOf(1)}), IsOk());
  disk->FillUp();
  uint64_t last = 1;
  while (store->Append({RecordOf(last + 1)}).ok()) ASSERT_LT(++last, 2000u);
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) ExpectExactly(*store, last);
  });
  for (int i = 0; i < 300; ++i) {
    EXPECT_THAT(store->Append({RecordOf(last + 1)}), Fails(StatusCode::kResourceExhausted, ""));
  }
  done = true;
  reader.join();
}

TEST(MetadataDiskTest, AFullDiskAtOpenIsResourceExhausted) {
  std::string why;
  const auto disk = SmallDisk::Mount(1 << 20, &why);
  if (!disk) GTEST_SKIP() << why;
  disk->FillUp();
  EXPECT_THAT(MetadataStore::Open(disk->path() / "metadata"),
              Fails(StatusCode::kResourceExhausted, "No space left"));
}

TEST(MetadataDiskTest, AReadOnlyDiskIsPermissionDenied) {
  std::string why;
  const auto disk = SmallDisk::Mount(4 << 20, &why);
  if (!disk) GTEST_SKIP() << why;
  ASSERT_THAT(MetadataStore::Open(disk->path()).value()->Append({RecordOf(1)}), IsOk());
  ASSERT_TRUE(disk->SetReadOnly(true));
  EXPECT_THAT(MetadataStore::Open(disk->path()),
              Fails(StatusCode::kPermissionDenied, "Read-only file system"));
  ASSERT_TRUE(disk->SetReadOnly(false));
  ExpectExactly(*MetadataStore::Open(disk->path()).value(), 1);
}

// A limit on the size of files, which needs no rights: writes fail half-way through.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = SIG_DFL;
};

TEST(MetadataDiskTest, AWriteThatFailsHalfWayIsNeverSeen) {
  TempFolder folder;
  auto store = MetadataStore::Open(folder.path()).value();
  uint64_t last = 0;
  for (; last < 5; ++last) ASSERT_THAT(store->Append({RecordOf(last + 1)}), IsOk());
  for (int round = 0; round < 3; ++round) {
    {
      const FileSizeLimit limit(200'000);
      const std::string big(300'000, 'x');
      EXPECT_THAT(store->Append({RecordOf(last + 1), big, "more"}),
                  Fails(StatusCode::kResourceExhausted, ""));
      ExpectExactly(*store, last);
    }
    ASSERT_THAT(store->Append({RecordOf(last + 1)}), IsOk());
    ExpectExactly(*store, ++last);
  }
  store.reset();
  ExpectExactly(*MetadataStore::Open(folder.path()).value(), last);
}

class LogDamageTest : public testing::Test {
 protected:
  // A log of ten batches of two records; `ends_[i]` is its size after i of them.
  void SetUp() override {
    auto store = MetadataStore::Open(folder_.path()).value();
    const fs::path log = NewestLog(folder_.path());
    for (uint64_t seq = 1; seq <= 20; seq += 2) {
      ends_.push_back(fs::file_size(log));
      ASSERT_THAT(store->Append({RecordOf(seq), RecordOf(seq + 1)}), IsOk());
    }
    ends_.push_back(fs::file_size(log));
  }
  // A copy to damage.
  fs::path Copy(const TempFolder& to) const {
    fs::copy(folder_.path(), to.path() / "copy", fs::copy_options::recursive);
    return to.path() / "copy";
  }
  TempFolder folder_;
  std::vector<uintmax_t> ends_;
};

TEST_F(LogDamageTest, ACutLogHoldsTheWholeBatchesBeforeTheCut) {
  for (uintmax_t size = ends_[0]; size <= ends_[10]; size += 6007) {
    const TempFolder scratch;
    const fs::path copy = Copy(scratch);
    fs::resize_file(NewestLog(copy), size);
    size_t whole = 0;
    while (whole < 10 && ends_[whole + 1] <= size) ++whole;
    const auto store = MetadataStore::Open(copy);
    ASSERT_THAT(store, IsOk()) << size;
    ExpectExactly(**store, 2 * whole);
    ASSERT_THAT((*store)->Append({RecordOf(2 * whole + 1)}), IsOk());
    ExpectExactly(**store, 2 * whole + 1);
  }
}

TEST_F(LogDamageTest, AFlippedByteBeforeTheEndIsDataLossNotAShorterJournal) {
  for (uintmax_t at = ends_[0] + 11; at < ends_[9]; at += 9973) {
    const TempFolder scratch;
    const fs::path copy = Copy(scratch);
    std::fstream log(NewestLog(copy), std::ios::in | std::ios::out | std::ios::binary);
    log.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(log.get() ^ 0x20);
    log.seekp(static_cast<std::streamoff>(at));
    log.put(byte);
    log.close();
    EXPECT_THAT(MetadataStore::Open(copy), Fails(StatusCode::kDataLoss, "")) << at;
  }
}

}  // namespace
}  // namespace lepton::storage
