// How batches of journal records and snapshots are written as RocksDB keys and values. FORMAT.md
// has the layout.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

inline constexpr uint32_t kMetadataFormatVersion = 1;
inline constexpr std::string_view kFormatKey = "f";
inline constexpr std::string_view kSnapshotKey = "s";
inline constexpr std::string_view kJournalPrefix = "j";
inline constexpr std::string_view kJournalEnd = "k";  // the first key after the journal

std::string JournalKey(uint64_t first_seq);
// kDataLoss for a key of another length.
Result<uint64_t> FirstSeqOfKey(std::string_view key);

// One batch is one value, so it is there as a whole or not at all, and an unacknowledged batch is
// replaced as a whole by the next one of the same number.
std::string EncodeBatch(uint64_t first_seq, const std::vector<std::string>& records);
struct DecodedBatch {
  uint64_t first_seq = 0;
  std::vector<std::string_view> records;  // borrow from the value
  uint64_t last_seq() const { return first_seq + records.size() - 1; }
};
// kDataLoss when the checksum or the layout is wrong.
Result<DecodedBatch> DecodeBatch(std::string_view key, std::string_view value);

std::string EncodeSnapshot(uint64_t seq, uint64_t dropped_seq, std::string_view state);
struct DecodedSnapshot {
  uint64_t seq = 0;
  uint64_t dropped_seq = 0;  // records up to here are gone
  std::string_view state;    // borrows from the value
};
Result<DecodedSnapshot> DecodeSnapshot(std::string_view value);

}  // namespace lepton::storage
