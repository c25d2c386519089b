// The coordinator's durable memory on RocksDB: an ordered journal of records, a snapshot that makes
// replay short, and side tables for what is voluminous and may lose its last moments (logs, metric
// points). Key prefixes and formats are in FORMAT.md.
//
// Errors of writes: kResourceExhausted when the disk is full, kPermissionDenied when it is
// read-only. Nothing of a failed write is ever replayed in this process's life; after a crash, a
// failed batch may turn out to have been written, then whole. Reads go on, and writes work again
// once the disk does.
//
// Threads: one writer of the journal (Append, WriteSnapshot); everything else from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

class MetadataStore {
 public:
  // Opens or makes the database. kFailedPrecondition: another process has it open (named), or a
  // newer program wrote it (both format versions named). kDataLoss: corrupt.
  static Result<std::unique_ptr<MetadataStore>> Open(const std::filesystem::path& folder);
  virtual ~MetadataStore() = default;

  // Appends records with consecutive sequence numbers from last_seq() + 1, all or nothing, synced
  // to disk on return (one fsync for the batch: callers group). Returns the last number. Records
  // are less than 1 GiB together, else kInvalidArgument.
  virtual Result<uint64_t> Append(const std::vector<std::string>& records) = 0;
  virtual uint64_t last_seq() const = 0;
  // Calls `on_record(seq, bytes)` for every record after `after_seq` that is still there, in order,
  // checking each batch's CRC32C and that none is missing (kDataLoss). Stops at the first error
  // that on_record returns. Sees a fixed moment of the journal, whatever is appended meanwhile.
  virtual Status Replay(
      uint64_t after_seq,
      const std::function<Status(uint64_t, std::string_view)>& on_record) const = 0;
  // Stores the state as of `seq` (not older than the last one's) and drops the records up to
  // `keep_after` (<= seq), by whole batches: events newer than that stay readable. Synced.
  virtual Status WriteSnapshot(uint64_t seq, std::string_view state, uint64_t keep_after) = 0;
  struct Snapshot {
    uint64_t seq = 0;
    std::string state;
  };
  virtual Result<std::optional<Snapshot>> ReadSnapshot() const = 0;

  // Side tables: `table` is one of the names in FORMAT.md. Not synced one by one; Flush() is.
  using Row = std::pair<std::string, std::string>;
  virtual Status Put(std::string_view table, const std::vector<Row>& rows) = 0;
  virtual Result<std::optional<std::string>> Get(std::string_view table,
                                                 std::string_view key) const = 0;
  // Rows with from <= key < to (to empty: the table's end), at most `limit`.
  virtual Result<std::vector<Row>> Scan(std::string_view table, std::string_view from,
                                        std::string_view to, size_t limit) const = 0;
  virtual Status Delete(std::string_view table, const std::vector<std::string>& keys) = 0;
  // Rows with from <= key < to. Costs the same for one row and for a million.
  virtual Status DeleteRange(std::string_view table, std::string_view from,
                             std::string_view to) = 0;
  virtual Status Flush() = 0;
};

// Big-endian, so that numeric order is key order.
std::string KeyU64(uint64_t value);
uint64_t U64FromKey(std::string_view eight_bytes);

}  // namespace lepton::storage
