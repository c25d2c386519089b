#include "storage/metadata/rocks_database.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "runtime/base/file.h"
#include "runtime/base/logging.h"

namespace lepton::storage {
namespace fs = std::filesystem;
namespace {

// RocksDB's own recovery (and DB::Resume) may wait for ever for a flush that cannot be written;
// Recover() does without it.
class NoAutoRecovery final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason /*reason*/, rocksdb::Status /*error*/,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }
};

rocksdb::Options MakeOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  // A record that was acknowledged must never be dropped silently: only a torn tail is forgiven.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.paranoid_checks = true;
  options.write_buffer_size = 4 << 20;
  options.max_write_buffer_number = 3;
  options.max_total_wal_size = 16 << 20;
  options.manifest_preallocation_size = 64 << 10;
  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.table_cache_numshardbits = 2;
  options.compression = rocksdb::kLZ4Compression;
  options.skip_stats_update_on_db_open = true;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.max_bgerror_resume_count = 0;
  options.listeners = {std::make_shared<NoAutoRecovery>()};
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(8 << 20, 2);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// Without CURRENT RocksDB would start anew and delete the old files.
Status CheckCurrent(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "CURRENT", error)) return Status::Ok();
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension();
    if (extension == ".sst" || extension == ".log") {
      return DataLoss(folder.string() + ": the file CURRENT is missing, but " +
                      it->path().filename().string() + " is there");
    }
  }
  if (error) return ErrnoStatus(error.value(), folder.string());
  return Status::Ok();
}

// Whether there is room for what opening the database writes, its logs as a table, and for a batch.
Status ProbeSpace(const fs::path& folder, size_t batch_bytes) {
  uintmax_t bytes = batch_bytes + (1 << 20);
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() != ".log") continue;
    std::error_code gone;
    const uintmax_t size = it->file_size(gone);
    if (!gone) bytes += size;
  }
  const fs::path probe = folder / "lepton.probe";
  const UniqueFd fd(::open(probe.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, probe.string());
  const int failed = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
  ::unlink(probe.c_str());
  return failed == 0 ? Status::Ok() : ErrnoStatus(failed, probe.string());
}

bool Mentions(const std::string& text, std::initializer_list<const char*> phrases) {
  return std::any_of(phrases.begin(), phrases.end(),
                     [&](const char* phrase) { return text.find(phrase) != std::string::npos; });
}

}  // namespace

Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return Status::Ok();
  const std::string text = status.ToString();
  const std::string message = std::string(what) + ": " + text;
  if (status.IsCorruption()) return DataLoss(message);
  if (status.IsNoSpace() || Mentions(text, {"No space left", "quota exceeded", "File too large"})) {
    return ResourceExhausted(message);
  }
  if (Mentions(text, {"Read-only file system", "Permission denied", "not permitted"})) {
    return PermissionDenied(message);
  }
  return Internal(message);
}

Result<std::unique_ptr<RocksDatabase>> RocksDatabase::Open(const fs::path& folder) {
  std::unique_ptr<RocksDatabase> database(new RocksDatabase(folder));
  LEPTON_RETURN_IF_ERROR(CheckCurrent(folder));
  LEPTON_RETURN_IF_ERROR(database->OpenLocked());
  return database;
}

Status RocksDatabase::OpenLocked() {
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(MakeOptions(), folder_.string(), &opened);
  db_.reset(opened);
  open_status_ = FromRocks(status, "metadata");
  return open_status_;
}

Status RocksDatabase::WriteOnce(rocksdb::WriteBatch& batch, bool sync) {
  rocksdb::WriteOptions options;
  options.sync = sync;
  const std::shared_lock lock(mutex_);
  return db_ ? FromRocks(db_->Write(options, &batch), "metadata") : open_status_;
}

Status RocksDatabase::Write(rocksdb::WriteBatch& batch, bool sync) {
  const Status status = WriteOnce(batch, sync);
  if (status.ok()) return status;
  if (!Recover(batch.GetDataSize()).ok()) return status;
  return WriteOnce(batch, sync);
}

Status RocksDatabase::Recover(size_t batch_bytes) {
  const std::unique_lock lock(mutex_);
  // While the disk is still full or read-only the database stays open, for reads.
  LEPTON_RETURN_IF_ERROR(ProbeSpace(folder_, batch_bytes));
  LOG(WARNING) << "metadata: opening the database again after a failed write";
  db_.reset();
  return OpenLocked();
}

Status RocksDatabase::SyncLog() {
  const std::shared_lock lock(mutex_);
  return db_ ? FromRocks(db_->FlushWAL(/*sync=*/true), "metadata") : open_status_;
}

Status RocksDatabase::Read(const std::function<Status(rocksdb::DB&)>& read) const {
  const std::shared_lock lock(mutex_);
  return db_ ? read(*db_) : open_status_;
}

}  // namespace lepton::storage
