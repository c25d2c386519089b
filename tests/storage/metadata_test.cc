#include "storage/metadata/metadata_store.h"

#include <rocksdb/db.h>

#include <fstream>
#include <thread>

#include "runtime/base/file.h"
#include "storage/metadata/crc32c.h"
#include "storage/metadata/journal_format.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::Pair;
using Records = std::vector<std::pair<uint64_t, std::string>>;

std::unique_ptr<MetadataStore> OpenOrDie(const fs::path& folder) {
  return MetadataStore::Open(folder).value();
}

Records ReplayAll(const MetadataStore& store, uint64_t after = 0) {
  Records records;
  EXPECT_THAT(store.Replay(after,
                           [&](uint64_t seq, std::string_view bytes) {
                             records.emplace_back(seq, bytes);
                             return Status::Ok();
                           }),
              IsOk());
  return records;
}

// Changes the database behind the store's back.
void WriteRaw(const fs::path& folder, std::string_view key, const std::string& value) {
  rocksdb::DB* raw = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, folder.string(), &raw).ok());
  const std::unique_ptr<rocksdb::DB> db(raw);
  ASSERT_TRUE(db->Put({}, rocksdb::Slice(key.data(), key.size()), value).ok());
}

class MetadataStoreTest : public testing::Test {
 protected:
  void Reopen() {
    store_.reset();
    store_ = OpenOrDie(folder_.path());
  }
  TempFolder folder_;
  std::unique_ptr<MetadataStore> store_ = OpenOrDie(folder_.path());
};

TEST(Crc32cTest, MatchesThePublishedValuesInBothImplementations) {
  // RFC 3720, appendix B.4.
  std::string rising(32, '\0');
  for (int i = 0; i < 32; ++i) rising[i] = static_cast<char>(i);
  const struct {
    std::string bytes;
    uint32_t crc;
  } kCases[] = {{"", 0},
                {"123456789", 0xE3069283u},
                {std::string(32, '\0'), 0x8A9136AAu},
                {std::string(32, '\xff'), 0x62A8AB43u},
                {rising, 0x46DD794Eu}};
  for (const auto& c : kCases) {
    EXPECT_EQ(Crc32c(c.bytes), c.crc);
    EXPECT_EQ(internal::Crc32cPortable(c.bytes, 0), c.crc);
  }
  for (size_t cut = 0; cut <= rising.size(); ++cut) {
    EXPECT_EQ(Crc32c(rising.substr(cut), Crc32c(rising.substr(0, cut))), 0x46DD794Eu);
  }
}

TEST(KeyU64Test, KeepsNumericOrder) {
  const uint64_t values[] = {0, 1, 255, 256, 65535, uint64_t{1} << 32, UINT64_MAX - 1, UINT64_MAX};
  for (size_t i = 0; i < std::size(values); ++i) {
    EXPECT_EQ(U64FromKey(KeyU64(values[i])), values[i]);
    EXPECT_TRUE(i == 0 || KeyU64(values[i - 1]) < KeyU64(values[i]));
  }
}

TEST_F(MetadataStoreTest, AppendsNumberRecordsFromOne) {
  EXPECT_EQ(store_->last_seq(), 0u);
  EXPECT_TRUE(ReplayAll(*store_).empty());
  EXPECT_EQ(store_->Append({"a", "", "c"}).value(), 3u);
  EXPECT_EQ(store_->Append({}).value(), 3u);
  EXPECT_EQ(store_->Append({std::string("\0d", 2)}).value(), 4u);
  const Records expected = {{1, "a"}, {2, ""}, {3, "c"}, {4, std::string("\0d", 2)}};
  EXPECT_EQ(ReplayAll(*store_), expected);
  Reopen();
  EXPECT_EQ(store_->last_seq(), 4u);
  EXPECT_EQ(ReplayAll(*store_), expected);
  EXPECT_EQ(store_->Append({"e"}).value(), 5u);
}

TEST_F(MetadataStoreTest, ReplayStartsAfterAnyNumber) {
  ASSERT_THAT(store_->Append({"1", "2", "3"}), IsOk());
  ASSERT_THAT(store_->Append({"4"}), IsOk());
  ASSERT_THAT(store_->Append({"5", "6"}), IsOk());
  for (uint64_t after = 0; after <= 8; ++after) {
    const Records records = ReplayAll(*store_, after);
    ASSERT_EQ(records.size(), after >= 6 ? 0 : 6 - after);
    for (size_t i = 0; i < records.size(); ++i) {
      EXPECT_THAT(records[i], Pair(after + 1 + i, std::to_string(after + 1 + i)));
    }
  }
}

TEST_F(MetadataStoreTest, ReplayStopsAtTheCallersError) {
  ASSERT_THAT(store_->Append({"1", "2", "3"}), IsOk());
  int calls = 0;
  EXPECT_THAT(store_->Replay(0,
                             [&](uint64_t seq, std::string_view) {
                               ++calls;
                               return seq == 2 ? Aborted("stop here") : Status::Ok();
                             }),
              Fails(StatusCode::kAborted, "stop here"));
  EXPECT_EQ(calls, 2);
}

TEST_F(MetadataStoreTest, ASnapshotDropsOldRecordsAndKeepsTheRest) {
  EXPECT_FALSE(store_->ReadSnapshot().value().has_value());
  for (int i = 1; i <= 10; ++i) ASSERT_THAT(store_->Append({std::to_string(i)}), IsOk());
  ASSERT_THAT(store_->WriteSnapshot(8, "state at 8", 5), IsOk());
  for (int i = 0; i < 2; ++i) {
    const auto snapshot = store_->ReadSnapshot().value();
    ASSERT_TRUE(snapshot.has_value());
    EXPECT_EQ(snapshot->seq, 8u);
    EXPECT_EQ(snapshot->state, "state at 8");
    EXPECT_THAT(ReplayAll(*store_, 0).front(), Pair(6, "6"));
    EXPECT_EQ(ReplayAll(*store_, 8).size(), 2u);
    Reopen();
  }
  ASSERT_THAT(store_->WriteSnapshot(10, "state at 10", 10), IsOk());
  EXPECT_TRUE(ReplayAll(*store_).empty());
  Reopen();
  EXPECT_EQ(store_->last_seq(), 10u);
  EXPECT_EQ(store_->Append({"11"}).value(), 11u);
  EXPECT_EQ(ReplayAll(*store_), (Records{{11, "11"}}));
}

TEST_F(MetadataStoreTest, ABatchStaysWholeWhenOnlyItsBeginningMayGo) {
  ASSERT_THAT(store_->Append({"1", "2"}), IsOk());
  ASSERT_THAT(store_->Append({"3", "4", "5"}), IsOk());
  ASSERT_THAT(store_->WriteSnapshot(5, "s", 4), IsOk());
  EXPECT_EQ(ReplayAll(*store_), (Records{{3, "3"}, {4, "4"}, {5, "5"}}));
  EXPECT_EQ(ReplayAll(*store_, 4), (Records{{5, "5"}}));
}

TEST_F(MetadataStoreTest, ASnapshotMustFitTheJournal) {
  ASSERT_THAT(store_->Append({"1", "2", "3"}), IsOk());
  EXPECT_THAT(store_->WriteSnapshot(4, "s", 0), Fails(StatusCode::kInvalidArgument, "ends at 3"));
  EXPECT_THAT(store_->WriteSnapshot(2, "s", 3), Fails(StatusCode::kInvalidArgument, "after 3"));
  ASSERT_THAT(store_->WriteSnapshot(2, "s", 0), IsOk());
  EXPECT_THAT(store_->WriteSnapshot(1, "s", 0),
              Fails(StatusCode::kInvalidArgument, "last snapshot is at 2"));
}

TEST_F(MetadataStoreTest, SideTablesAreOrderedAndApart) {
  ASSERT_THAT(store_->Put("logs", {{"b", "2"}, {"a", "1"}, {"c", "3"}, {"", "0"}}), IsOk());
  ASSERT_THAT(store_->Put("log", {{"sz", "other"}}), IsOk());
  ASSERT_THAT(store_->Put("metrics", {{"a", std::string("\0\xff", 2)}}), IsOk());
  EXPECT_EQ(store_->Get("logs", "a").value(), "1");
  EXPECT_EQ(store_->Get("metrics", "a").value(), std::string("\0\xff", 2));
  EXPECT_EQ(store_->Get("logs", "zz").value(), std::nullopt);
  EXPECT_THAT(store_->Scan("logs", "", "", 10).value(),
              ElementsAre(Pair("", "0"), Pair("a", "1"), Pair("b", "2"), Pair("c", "3")));
  EXPECT_THAT(store_->Scan("logs", "a", "c", 10).value(),
              ElementsAre(Pair("a", "1"), Pair("b", "2")));
  EXPECT_THAT(store_->Scan("logs", "a", "", 1).value(), ElementsAre(Pair("a", "1")));
  EXPECT_TRUE(store_->Scan("logs", "c", "a", 10).value().empty());
  ASSERT_THAT(store_->Delete("logs", {"a", "never there"}), IsOk());
  ASSERT_THAT(store_->Flush(), IsOk());
  Reopen();
  EXPECT_THAT(store_->Scan("logs", "a", "", 10).value(),
              ElementsAre(Pair("b", "2"), Pair("c", "3")));
  EXPECT_EQ(store_->last_seq(), 0u);
}

TEST_F(MetadataStoreTest, RangesOfRowsAreDeleted) {
  ASSERT_THAT(store_->Put("logs", {{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}}), IsOk());
  ASSERT_THAT(store_->Put("logt", {{"b", "other"}}), IsOk());
  ASSERT_THAT(store_->DeleteRange("logs", "b", "d"), IsOk());
  EXPECT_THAT(store_->Scan("logs", "", "", 10).value(),
              ElementsAre(Pair("a", "1"), Pair("d", "4")));
  ASSERT_THAT(store_->Put("logs", {{"b", "again"}}), IsOk());
  Reopen();
  EXPECT_EQ(store_->Get("logs", "b").value(), "again");
  EXPECT_EQ(store_->Get("logs", "c").value(), std::nullopt);
  EXPECT_EQ(store_->Get("logt", "b").value(), "other");
}

TEST_F(MetadataStoreTest, BadTableNamesAreRefused) {
  for (const std::string& bad : {std::string(), std::string("Logs"), std::string("a/b"),
                                 std::string("a\0b", 3), std::string(33, 'a')}) {
    EXPECT_THAT(store_->Put(bad, {{"k", "v"}}), Fails(StatusCode::kInvalidArgument, "table"));
    EXPECT_THAT(store_->Get(bad, "k"), Fails(StatusCode::kInvalidArgument, "table"));
    EXPECT_THAT(store_->Scan(bad, "", "", 1), Fails(StatusCode::kInvalidArgument, "table"));
    EXPECT_THAT(store_->Delete(bad, {"k"}), Fails(StatusCode::kInvalidArgument, "table"));
    EXPECT_THAT(store_->DeleteRange(bad, "", "k"), Fails(StatusCode::kInvalidArgument, "table"));
  }
}

TEST_F(MetadataStoreTest, ASecondOpenNamesTheHolder) {
  EXPECT_THAT(MetadataStore::Open(folder_.path()),
              Fails(StatusCode::kFailedPrecondition, "process " + std::to_string(::getpid())));
}

TEST_F(MetadataStoreTest, ReadersRunBesideTheWriter) {
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      uint64_t seen = 0;
      const uint64_t at_least = store_->last_seq();
      const Status status = store_->Replay(0, [&](uint64_t seq, std::string_view bytes) {
        EXPECT_EQ(bytes, std::to_string(seq));
        seen = seq;
        return Status::Ok();
      });
      EXPECT_THAT(status, IsOk());
      EXPECT_GE(seen, at_least);
      EXPECT_THAT(store_->Put("logs", {{KeyU64(seen), "x"}}), IsOk());
    }
  });
  for (uint64_t seq = 1; seq <= 200; seq += 2) {
    ASSERT_THAT(store_->Append({std::to_string(seq), std::to_string(seq + 1)}), IsOk());
    if (seq % 50 == 1) {
      ASSERT_THAT(store_->WriteSnapshot(seq, "s", 0), IsOk());
    }
  }
  done = true;
  reader.join();
}

TEST_F(MetadataStoreTest, AnUnknownFormatVersionIsRefusedNamingBoth) {
  store_.reset();
  WriteRaw(folder_.path(), kFormatKey, "7");
  EXPECT_THAT(
      MetadataStore::Open(folder_.path()),
      Fails(StatusCode::kFailedPrecondition, "version 7, but this program reads version 1"));
}

TEST_F(MetadataStoreTest, ADamagedBatchIsDataLoss) {
  ASSERT_THAT(store_->Append({"1"}), IsOk());
  ASSERT_THAT(store_->Append({"2"}), IsOk());
  ASSERT_THAT(store_->Append({"3"}), IsOk());
  store_.reset();
  std::string value = EncodeBatch(2, {"2"});
  value.back() ^= 1;
  WriteRaw(folder_.path(), JournalKey(2), value);
  store_ = OpenOrDie(folder_.path());
  Records seen;
  EXPECT_THAT(store_->Replay(0,
                             [&](uint64_t seq, std::string_view bytes) {
                               seen.emplace_back(seq, bytes);
                               return Status::Ok();
                             }),
              Fails(StatusCode::kDataLoss, "journal batch 2: wrong checksum"));
  EXPECT_EQ(seen, (Records{{1, "1"}}));
}

TEST_F(MetadataStoreTest, AGapIsDataLoss) {
  ASSERT_THAT(store_->Append({"1"}), IsOk());
  store_.reset();
  WriteRaw(folder_.path(), JournalKey(3), EncodeBatch(3, {"3"}));
  store_ = OpenOrDie(folder_.path());
  EXPECT_THAT(store_->Replay(0, [](uint64_t, std::string_view) { return Status::Ok(); }),
              Fails(StatusCode::kDataLoss, "record 2 is missing"));
}

TEST_F(MetadataStoreTest, ADamagedSnapshotIsDataLoss) {
  ASSERT_THAT(store_->Append({"1"}), IsOk());
  store_.reset();
  std::string value = EncodeSnapshot(1, 0, "state");
  value[6] ^= 1;
  WriteRaw(folder_.path(), kSnapshotKey, value);
  EXPECT_THAT(MetadataStore::Open(folder_.path()), Fails(StatusCode::kDataLoss, "snapshot"));
}

TEST_F(MetadataStoreTest, ALostCurrentFileDoesNotStartAnEmptyDatabase) {
  ASSERT_THAT(store_->Append({"1"}), IsOk());
  store_.reset();
  fs::remove(folder_.path() / "CURRENT");
  EXPECT_THAT(MetadataStore::Open(folder_.path()), Fails(StatusCode::kDataLoss, "CURRENT"));
}

TEST(JournalFormatTest, DamagedValuesNeverDecode) {
  const std::string good = EncodeBatch(5, {"first", "", "third"});
  const std::string key = JournalKey(5);
  ASSERT_EQ(DecodeBatch(key, good).value().records.size(), 3u);
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_THAT(DecodeBatch(key, good.substr(0, i)), Fails(StatusCode::kDataLoss, ""));
    std::string bad = good;
    bad[i] ^= 0x10;
    EXPECT_THAT(DecodeBatch(key, bad), Fails(StatusCode::kDataLoss, ""));
  }
  EXPECT_THAT(DecodeBatch(JournalKey(6), good), Fails(StatusCode::kDataLoss, "batch 6"));
  EXPECT_THAT(DecodeBatch("j", good), Fails(StatusCode::kDataLoss, "wrong length"));
}

}  // namespace
}  // namespace lepton::storage
