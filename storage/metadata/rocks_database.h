// RocksDB as the metadata store uses it: tuned for one small database that opens in milliseconds,
// its errors as Status, and a handle that comes back to life after a failed write.
// Threads: any.
#pragma once

#include <rocksdb/db.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <shared_mutex>

#include "runtime/base/status.h"

namespace lepton::storage {

// IOError by its errno text: no space, quota or file-size limit is kResourceExhausted, a read-only
// or forbidden place kPermissionDenied. Corruption is kDataLoss.
Status FromRocks(const rocksdb::Status& status, std::string_view what);

class RocksDatabase {
 public:
  // The folder must exist and be locked by the caller. kDataLoss when files of a database are
  // there, but not the one that names them.
  static Result<std::unique_ptr<RocksDatabase>> Open(const std::filesystem::path& folder);

  // All or nothing. RocksDB refuses every write after one that failed; this then closes and
  // opens the database, as soon as the disk has room, and tries once more.
  Status Write(rocksdb::WriteBatch& batch, bool sync);
  Status SyncLog();
  // Calls `read` with the database; it stays open meanwhile. The error of the last attempt to open
  // it, when it could not be opened again.
  Status Read(const std::function<Status(rocksdb::DB&)>& read) const;

 private:
  explicit RocksDatabase(std::filesystem::path folder) : folder_(std::move(folder)) {}
  Status OpenLocked();
  Status WriteOnce(rocksdb::WriteBatch& batch, bool sync);
  Status Recover(size_t batch_bytes);

  const std::filesystem::path folder_;
  mutable std::shared_mutex mutex_;  // exclusive only while the database is opened again
  std::unique_ptr<rocksdb::DB> db_;  // null after a failed attempt to open it again
  Status open_status_;
};

}  // namespace lepton::storage
