// How a job's rows are named in the side tables (storage/metadata/FORMAT.md).
// Private to scheduler/loop.
#pragma once

#include <string>

#include "runtime/base/ids.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::scheduler {

// A report.
inline std::string RowKey(const JobId& job, uint64_t seq) {
  return job.str() + std::string("\0r", 2) + storage::KeyU64(seq);
}
// A task's newest report. Sorts after every RowKey of the job.
inline std::string NewestKey(const JobId& job, const std::string& task) {
  return job.str() + std::string("\0s", 2) + task;
}
// How much the job's rows are.
inline std::string UsageKey(const JobId& job) {
  return job.str() + std::string("\0u", 2);
}
inline uint64_t SeqOf(std::string_view row_key) {
  return storage::U64FromKey(row_key.substr(row_key.size() - 8));
}

}  // namespace lepton::scheduler
