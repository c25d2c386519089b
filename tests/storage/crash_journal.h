// What the crash test's writer appends, so that a reader can tell from any record what it must be
// and whether its whole batch is there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lepton::storage {

inline constexpr uint64_t kMaxCrashBatch = 9;

// The record `seq` of the batch that begins at `first` and has `size` records.
inline std::string CrashRecord(uint64_t seq, uint64_t first, uint64_t size) {
  std::string text =
      std::to_string(seq) + " " + std::to_string(first) + " " + std::to_string(size) + " ";
  const char fill = static_cast<char>('a' + seq % 26);
  return text += std::string((seq * 7919) % 3000, fill);
}

inline std::vector<std::string> CrashBatch(uint64_t first) {
  const uint64_t size = 1 + (first * 31) % kMaxCrashBatch;
  std::vector<std::string> records;
  for (uint64_t i = 0; i < size; ++i) records.push_back(CrashRecord(first + i, first, size));
  return records;
}

inline std::string CrashState(uint64_t seq) {
  return "state as of " + std::to_string(seq);
}

}  // namespace lepton::storage
