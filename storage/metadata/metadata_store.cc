#include "storage/metadata/metadata_store.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "runtime/base/file.h"
#include "storage/metadata/journal_format.h"
#include "storage/metadata/rocks_database.h"
#include "storage/metadata/side_tables.h"

namespace lepton::storage {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxBatchBytes = uint64_t{1} << 30;

std::string_view View(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}
rocksdb::Slice Slice(std::string_view text) {
  return {text.data(), text.size()};
}

class RocksMetadataStore final : public MetadataStore {
 public:
  RocksMetadataStore(FileLock lock, std::unique_ptr<RocksDatabase> database)
      : lock_(std::move(lock)), database_(std::move(database)), tables_(*database_) {}

  // Reads what the journal's numbers are.
  Status Load();

  Result<uint64_t> Append(const std::vector<std::string>& records) override;
  uint64_t last_seq() const override { return last_seq_.load(std::memory_order_acquire); }
  Status Replay(uint64_t after_seq,
                const std::function<Status(uint64_t, std::string_view)>& on_record) const override;
  Status WriteSnapshot(uint64_t seq, std::string_view state, uint64_t keep_after) override;
  Result<std::optional<Snapshot>> ReadSnapshot() const override;

  Status Put(std::string_view table, const std::vector<Row>& rows) override {
    return tables_.Put(table, rows);
  }
  Result<std::optional<std::string>> Get(std::string_view table,
                                         std::string_view key) const override {
    return tables_.Get(table, key);
  }
  Result<std::vector<Row>> Scan(std::string_view table, std::string_view from, std::string_view to,
                                size_t limit) const override {
    return tables_.Scan(table, from, to, limit);
  }
  Status Delete(std::string_view table, const std::vector<std::string>& keys) override {
    return tables_.Delete(table, keys);
  }
  Status DeleteRange(std::string_view table, std::string_view from, std::string_view to) override {
    return tables_.DeleteRange(table, from, to);
  }
  Status Flush() override { return database_->SyncLog(); }

 private:
  Status CheckFormat(rocksdb::DB& db);
  Status FindLast(rocksdb::DB& db);
  Result<uint64_t> DropEnd(uint64_t keep_after) const;

  const FileLock lock_;
  const std::unique_ptr<RocksDatabase> database_;
  SideTables tables_;
  // Held by a writer for its whole write, by Replay while it takes its view.
  mutable std::mutex journal_mutex_;
  std::atomic<uint64_t> last_seq_{0};
  uint64_t snapshot_seq_ = 0;
  uint64_t dropped_seq_ = 0;  // records up to here are gone
};

Status RocksMetadataStore::Load() {
  bool fresh = false;
  LEPTON_RETURN_IF_ERROR(database_->Read([&](rocksdb::DB& db) -> Status {
    const std::unique_ptr<rocksdb::Iterator> it(db.NewIterator({}));
    it->SeekToFirst();
    LEPTON_RETURN_IF_ERROR(FromRocks(it->status(), "metadata"));
    fresh = !it->Valid();
    if (fresh) return Status::Ok();
    LEPTON_RETURN_IF_ERROR(CheckFormat(db));
    return FindLast(db);
  }));
  if (!fresh) return Status::Ok();
  rocksdb::WriteBatch batch;
  batch.Put(Slice(kFormatKey), std::to_string(kMetadataFormatVersion));
  return database_->Write(batch, /*sync=*/true);
}

Status RocksMetadataStore::CheckFormat(rocksdb::DB& db) {
  std::string version;
  const rocksdb::Status status = db.Get({}, Slice(kFormatKey), &version);
  if (status.IsNotFound()) return DataLoss("metadata: there are rows, but no format version");
  LEPTON_RETURN_IF_ERROR(FromRocks(status, "metadata"));
  if (version != std::to_string(kMetadataFormatVersion)) {
    return FailedPrecondition("metadata: has format version " + version +
                              ", but this program reads version " +
                              std::to_string(kMetadataFormatVersion));
  }
  return Status::Ok();
}

Status RocksMetadataStore::FindLast(rocksdb::DB& db) {
  std::string value;
  const rocksdb::Status status = db.Get({}, Slice(kSnapshotKey), &value);
  if (!status.IsNotFound()) {
    LEPTON_RETURN_IF_ERROR(FromRocks(status, "metadata"));
    LEPTON_ASSIGN_OR_RETURN(const DecodedSnapshot snapshot, DecodeSnapshot(value));
    snapshot_seq_ = snapshot.seq;
    dropped_seq_ = snapshot.dropped_seq;
  }
  const std::unique_ptr<rocksdb::Iterator> it(db.NewIterator({}));
  it->SeekForPrev(Slice(kJournalEnd));
  LEPTON_RETURN_IF_ERROR(FromRocks(it->status(), "metadata"));
  uint64_t last = std::max(snapshot_seq_, dropped_seq_);
  if (it->Valid() && View(it->key()).starts_with(kJournalPrefix)) {
    LEPTON_ASSIGN_OR_RETURN(const DecodedBatch batch,
                            DecodeBatch(View(it->key()), View(it->value())));
    last = std::max(last, batch.last_seq());
  }
  last_seq_.store(last, std::memory_order_release);
  return Status::Ok();
}

Result<uint64_t> RocksMetadataStore::Append(const std::vector<std::string>& records) {
  const std::lock_guard lock(journal_mutex_);
  const uint64_t first = last_seq() + 1;
  if (records.empty()) return last_seq();
  uint64_t size = 0;
  for (const std::string& record : records) size += record.size() + 4;
  if (size > kMaxBatchBytes) {
    return InvalidArgument("journal: a batch of " + std::to_string(size) +
                           " bytes; the limit is 1 GiB");
  }
  // A failed write leaves last_seq_ as it is, so the next batch has the same key: what may have
  // reached the log of the failed one is replaced as a whole.
  rocksdb::WriteBatch batch;
  batch.Put(JournalKey(first), EncodeBatch(first, records));
  LEPTON_RETURN_IF_ERROR(database_->Write(batch, /*sync=*/true));
  const uint64_t last = first + records.size() - 1;
  last_seq_.store(last, std::memory_order_release);
  return last;
}

Status RocksMetadataStore::Replay(
    uint64_t after_seq, const std::function<Status(uint64_t, std::string_view)>& on_record) const {
  // Before the database's own lock, as Append takes them: an append that opens the database again
  // would otherwise wait for this reader, and this reader for the append.
  std::unique_lock lock(journal_mutex_);
  return database_->Read([&](rocksdb::DB& db) -> Status {
    const uint64_t last = last_seq();
    uint64_t next = std::max(after_seq, dropped_seq_) + 1;
    const std::unique_ptr<rocksdb::Iterator> it(db.NewIterator({}));
    lock.unlock();

    it->SeekForPrev(JournalKey(next));  // the batch that holds `next` may begin before it
    if (!it->Valid() || !View(it->key()).starts_with(kJournalPrefix)) it->Seek(JournalKey(next));
    for (; next <= last; it->Next()) {
      LEPTON_RETURN_IF_ERROR(FromRocks(it->status(), "metadata"));
      if (!it->Valid() || !View(it->key()).starts_with(kJournalPrefix)) break;
      LEPTON_ASSIGN_OR_RETURN(const DecodedBatch batch,
                              DecodeBatch(View(it->key()), View(it->value())));
      if (batch.last_seq() < next) continue;
      if (batch.first_seq > next) break;
      for (; next <= batch.last_seq() && next <= last; ++next) {
        LEPTON_RETURN_IF_ERROR(on_record(next, batch.records[next - batch.first_seq]));
      }
    }
    if (next <= last) return DataLoss("journal: record " + std::to_string(next) + " is missing");
    return Status::Ok();
  });
}

// The first record that stays when those up to `keep_after` go by whole batches.
Result<uint64_t> RocksMetadataStore::DropEnd(uint64_t keep_after) const {
  uint64_t end = keep_after + 1;
  LEPTON_RETURN_IF_ERROR(database_->Read([&](rocksdb::DB& db) -> Status {
    const std::unique_ptr<rocksdb::Iterator> it(db.NewIterator({}));
    it->SeekForPrev(JournalKey(end));
    LEPTON_RETURN_IF_ERROR(FromRocks(it->status(), "metadata"));
    if (!it->Valid() || !View(it->key()).starts_with(kJournalPrefix)) return Status::Ok();
    LEPTON_ASSIGN_OR_RETURN(const DecodedBatch batch,
                            DecodeBatch(View(it->key()), View(it->value())));
    if (batch.last_seq() > keep_after) end = batch.first_seq;
    return Status::Ok();
  }));
  return end;
}

Status RocksMetadataStore::WriteSnapshot(uint64_t seq, std::string_view state,
                                         uint64_t keep_after) {
  const std::lock_guard lock(journal_mutex_);
  if (seq > last_seq() || seq < snapshot_seq_ || keep_after > seq) {
    return InvalidArgument("snapshot at " + std::to_string(seq) + ", keeping what is after " +
                           std::to_string(keep_after) + ": the journal ends at " +
                           std::to_string(last_seq()) + " and the last snapshot is at " +
                           std::to_string(snapshot_seq_));
  }
  LEPTON_ASSIGN_OR_RETURN(const uint64_t drop_end, DropEnd(keep_after));
  const uint64_t dropped = std::max(dropped_seq_, drop_end - 1);
  rocksdb::WriteBatch batch;
  batch.Put(Slice(kSnapshotKey), EncodeSnapshot(seq, dropped, state));
  if (dropped > dropped_seq_) {
    batch.DeleteRange(JournalKey(dropped_seq_ + 1), JournalKey(dropped + 1));
  }
  LEPTON_RETURN_IF_ERROR(database_->Write(batch, /*sync=*/true));
  snapshot_seq_ = seq;
  dropped_seq_ = dropped;
  return Status::Ok();
}

Result<std::optional<MetadataStore::Snapshot>> RocksMetadataStore::ReadSnapshot() const {
  std::optional<Snapshot> snapshot;
  LEPTON_RETURN_IF_ERROR(database_->Read([&](rocksdb::DB& db) -> Status {
    std::string value;
    const rocksdb::Status status = db.Get({}, Slice(kSnapshotKey), &value);
    if (status.IsNotFound()) return Status::Ok();
    LEPTON_RETURN_IF_ERROR(FromRocks(status, "metadata"));
    LEPTON_ASSIGN_OR_RETURN(const DecodedSnapshot decoded, DecodeSnapshot(value));
    snapshot = Snapshot{decoded.seq, std::string(decoded.state)};
    return Status::Ok();
  }));
  return snapshot;
}

}  // namespace

Result<std::unique_ptr<MetadataStore>> MetadataStore::Open(const fs::path& folder) {
  LEPTON_RETURN_IF_ERROR(MakeFolders(folder).WithContext("metadata"));
  auto lock = FileLock::Acquire(folder / "lepton.lock");
  if (!lock.ok()) return lock.status().WithContext("metadata");
  LEPTON_ASSIGN_OR_RETURN(auto database, RocksDatabase::Open(folder));
  auto store = std::make_unique<RocksMetadataStore>(*std::move(lock), std::move(database));
  LEPTON_RETURN_IF_ERROR(store->Load());
  return std::unique_ptr<MetadataStore>(std::move(store));
}

}  // namespace lepton::storage
